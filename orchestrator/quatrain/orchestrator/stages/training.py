"""What all stages do the same way: open a learner from the last checkpoint, train, checkpoint, export."""

import asyncio
import contextlib
import time
from dataclasses import dataclass

from quatrain.digests import canonical_json
from quatrain.errors import TRANSIENT_ERRORS, LearnerBusy, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog.payloads import (
    CheckpointCommitted,
    LearnerOpened,
    Metrics,
    StageCompleted,
    StageReport,
    StageStarted,
    StepCompleted,
)
from quatrain.joblog.view import Checkpoint
from quatrain.orchestrator.job.phase import Phase
from quatrain.orchestrator.job.run import UNAVAILABLE, JobRun
from quatrain.orchestrator.peers.learner_session import LearnerSession, OpenCall, TrainedStep
from quatrain.orchestrator.retention.owner_cleanup import release_needless
from quatrain.refs import ModelRef
from quatrain.stages import Stage
from quatrain.telemetry.logging import get_logger

log = get_logger("training")

LEARNER_WAIT_SECONDS = 1.0


@dataclass(frozen=True)
class Opening:
    """The models that a stage's learner starts from; its rows are those of the plan."""

    stage: Stage
    model: ModelRef
    value_model: ModelRef | None = None
    value_scale: float = 1.0
    value_offset: float = 0.0


async def begin_stage(run: JobRun, stage: Stage) -> None:
    """Record the start of a stage once."""
    if run.view.stage != stage.name:
        total = run.plan.total_steps(stage)
        await run.append(StageStarted(stage=stage.name, total_steps=total, elapsed=run.elapsed()))


async def open_learner(run: JobRun, opening: Opening) -> LearnerSession:
    """Open a learner from the stage's last checkpoint, waiting until one is free. An event begins the attempt."""
    await run.abandon_session()
    checkpoint = run.view.newest_checkpoint(opening.stage.name)
    from_step = checkpoint.step if checkpoint else 0
    await run.append(LearnerOpened(stage=opening.stage.name, from_step=from_step))
    fault_point("owner.before_open")
    run.session = await run.unless_stopped(_wait_for_learner(run, _open_call(run, opening, checkpoint)))
    run.learner_left = False
    fault_point("owner.after_open")
    for condition in ("learner", UNAVAILABLE):
        await run.condition(condition, None)
    log.info("learner opened", job=run.plan.job, stage=opening.stage.name, address=run.session.address, step=from_step)
    await run.set_state("RUNNING")
    return run.session


async def _wait_for_learner(run: JobRun, call: OpenCall) -> LearnerSession:
    """Ask until a learner takes the job: by priority, then by age, among the jobs of this orchestrator."""
    try:
        while True:
            try:
                loading = Phase(run, f"loading the models of {call.stage}")
                return await loading.during(run.context.learners.open(call, run.plan.rank))
            except (LearnerBusy, *TRANSIENT_ERRORS) as error:
                await run.set_state("QUEUED", error.message)
                await run.condition("learner", error.message)
            await asyncio.sleep(LEARNER_WAIT_SECONDS)
            with contextlib.suppress(Unavailable):
                await run.refresh()
    finally:
        run.context.learners.leave(run.plan.job)


def _open_call(run: JobRun, opening: Opening, checkpoint: Checkpoint | None) -> OpenCall:
    plan, rows = run.plan, run.plan.pinned.rows.get(opening.stage)
    return OpenCall(
        token=run.token(),
        stage=opening.stage,
        section_json=canonical_json(plan.section_json(opening.stage)).decode(),
        model=opening.model,
        tokenizer=plan.pinned.model,
        total_steps=plan.total_steps(opening.stage),
        seed=plan.seed,
        dtype=plan.dtype,
        deterministic=plan.spec.deterministic,
        exact_logprobs=run.exact_logprobs,
        temperature=plan.spec.ppo.generation.temperature,
        data=None if rows is None else rows.train,
        held_out=None if rows is None else rows.held_out,
        checkpoint=None if checkpoint is None else checkpoint.manifest,
        value_model=opening.value_model,
        value_scale=opening.value_scale,
        value_offset=opening.value_offset,
    )


async def save_checkpoint(run: JobRun, session: LearnerSession, stage: Stage, step: int) -> float:
    """Save all state and commit it by an event. Returns the seconds that it took."""
    started = time.monotonic()
    manifest = await Phase(run, f"saving the checkpoint of step {step}").during(
        run.retry_while_unavailable(lambda: session.save(step))
    )
    fault_point("owner.after_save")
    await run.append(
        CheckpointCommitted(stage=stage.name, step=step, key=manifest.key, sha256=manifest.sha256, size=manifest.size)
    )
    fault_point("owner.after_checkpoint")
    await release_needless(run)
    return time.monotonic() - started


def checkpoint_due(run: JobRun, stage: Stage, step: int) -> bool:
    """Return True at every `checkpoint.every_steps` and at the last step, unless the log names one for this step."""
    last = run.view.newest_checkpoint(stage.name)
    if last is not None and last.step >= step:
        return False
    return step % run.plan.spec.checkpoint.every_steps == 0 or step == run.plan.total_steps(stage)


async def train_rows(run: JobRun, session: LearnerSession, stage: Stage) -> Metrics:
    """Train all remaining steps of sft or reward. Batches are a function of data, seed and step: only the step is kept.

    Returns the metrics of the last step as the log has them, whichever attempt trained it.
    """
    for step in range(session.step + 1, run.plan.total_steps(stage) + 1):
        run.raise_if_asked_to_stop()
        started = time.monotonic()
        result = await _train(run, session, step)
        metrics = dict(result.metrics)
        metrics["time/train"] = result.compute_seconds
        metrics["time/step"] = time.monotonic() - started
        if step > run.view.completed.get(stage.name, 0):
            await run.append(
                StepCompleted(
                    stage=stage.name,
                    step=step,
                    metrics=metrics,
                    elapsed=run.elapsed(),
                    learner=session.learner_id,
                )
            )
        if checkpoint_due(run, stage, step):
            await save_checkpoint(run, session, stage, step)
    return dict(run.view.metrics[stage.name][-1].values)


async def _train(run: JobRun, session: LearnerSession, step: int) -> TrainedStep:
    phase = Phase(run, f"training step {step}", every_step=True)
    return await phase.during(run.retry_while_unavailable(lambda: session.train(step, None)))


async def export(
    run: JobRun, session: LearnerSession, stage: Stage, extra_files: dict[str, bytes], report: StageReport
) -> None:
    """Write the finished model and end the stage."""
    phase = Phase(run, f"exporting the model of {stage}")
    exported = await phase.during(run.retry_while_unavailable(lambda: session.export(extra_files)))
    fault_point("owner.after_export")
    model, weights = exported.model, exported.weights_sha256
    await run.append(StageCompleted(stage=stage.name, model=model, weights_sha256=weights, report=report))
    fault_point("owner.after_stage")
