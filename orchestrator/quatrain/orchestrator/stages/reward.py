"""The reward stage: trains the model, measures the offset that centres it, and refuses one that is too weak."""

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from quatrain.digests import canonical_json
from quatrain.errors import RunFailed
from quatrain.faults import fault_point
from quatrain.joblog.payloads import OffsetMeasured, StageReport
from quatrain.jobspec.reward_section import ModelSource, RewardSection
from quatrain.orchestrator.job.await_rollouts import await_rollouts
from quatrain.orchestrator.job.phase import Phase
from quatrain.orchestrator.job.run import JobFailed, JobRun
from quatrain.orchestrator.peers.learner_session import LearnerSession
from quatrain.orchestrator.rollout.samples import Made, Rollout
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, offset_samples, scoring, trainer_state
from quatrain.orchestrator.stages.degenerate_answers import PROBED, degenerate_answers
from quatrain.orchestrator.stages.model_card import card_files
from quatrain.orchestrator.stages.training import Opening, begin_stage, export, open_learner, train_rows
from quatrain.stages import REWARD
from quatrain.text.model_folder import OFFSET_FILE

HELD_OUT_ACCURACY = "reward_model/held_out_accuracy"


async def run_reward(run: JobRun) -> None:
    """Train what is left to train, centre, export. Raises JobFailed when the held-out accuracy is too low."""
    plan, section = run.plan, run.plan.spec.reward
    await begin_stage(run, REWARD)
    opening = Opening(REWARD, run.sft_model())
    session = await open_learner(run, opening)
    metrics = await train_rows(run, session, REWARD)
    _check_accuracy(metrics.get(HELD_OUT_ACCURACY), section.min_accuracy)
    offset = await _offset(run, session) if section.center else 0.0
    if run.view.offset is not None:
        metrics = {**metrics, **run.view.offset.report}
    files = card_files(plan, REWARD, metrics)
    files[OFFSET_FILE] = canonical_json({"offset": offset})
    await export(run, session, REWARD, files, StageReport(metrics=metrics, offset=offset))


def _check_accuracy(accuracy: float | None, least: float) -> None:
    if accuracy is not None and accuracy < least:
        raise JobFailed(
            f"the reward model is right on {accuracy:.3f} of the held-out pairs, reward.min_accuracy is {least}: "
            "look at the preference data, train longer, or lower reward.min_accuracy",
            reason="REWARD_MODEL_TOO_WEAK",
        )


async def _offset(run: JobRun, session: LearnerSession) -> float:
    """Return the mean raw score of the SFT model's completions of training prompts; measured once, kept in the log."""
    if run.view.offset is not None:
        return run.view.offset.offset
    publishing = Phase(run, "publishing the reward model")
    model = await publishing.during(run.retry_while_unavailable(lambda: session.publish(session.step)))
    source = ModelSource(uri=model.uri, digest=model.digest, offset=0.0, dtype=run.plan.dtype)
    section = RewardSection(models=(source,))
    measured = await measure_offset(run, section)
    report = await degenerate_answers(run, section, measured.rollouts, measured.median)
    fault_point("owner.after_offset")
    await run.append(OffsetMeasured(offset=measured.offset, samples=measured.samples, report=report))
    return measured.offset


@dataclass(frozen=True)
class OffsetMeasurement:
    """Samples of the SFT model, and statistics of their scores."""

    rollouts: list[Rollout]
    """The first samples, scored or not."""
    samples: int
    """How many samples have a score."""
    offset: float
    """Mean score: what centring subtracts."""
    median: float


async def measure_offset(run: JobRun, section: RewardSection) -> OffsetMeasurement:
    """Score the SFT model's completions under a raw reward section. Raises RunFailed when none has a score."""
    plan = run.plan
    batch = ExpectedBatch(
        purpose="offset",
        step=0,
        samples=await asyncio.to_thread(offset_samples, plan),
        policy=run.sft_model(),
        policy_version=0,
        prompts=plan.pinned.prompts,
        scorings=(scoring("score", section, 0.0),),
        reference=None,
        trainer_state=trainer_state(plan, 0),
    )
    made = await run.unless_stopped(await_rollouts(run, batch))
    await run.collector.forget("offset", 0)
    return await asyncio.to_thread(_measured, made)


def _measured(made: Sequence[Made]) -> OffsetMeasurement:
    rollouts = [each.rollout for each in made[:PROBED]]
    scores = [said.score for each in made for said in each.rollout.scores if said.score is not None]
    if not scores:
        raise RunFailed("no completion of the SFT model could be scored: look at the reward's log")
    return OffsetMeasurement(rollouts, len(scores), statistics.fmean(scores), statistics.median(scores))
