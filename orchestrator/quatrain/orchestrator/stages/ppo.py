"""PPO: expect, collect, seal, train, publish, checkpoint; a replay takes the sealed batches that the log names."""

import asyncio
from collections import Counter
from collections.abc import Sequence

from quatrain.batches import BatchRow
from quatrain.faults import fault_point
from quatrain.joblog.payloads import BatchSealed, Metrics, Payload, PolicyPublished, StageReport, StepCompleted
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.job.await_rollouts import await_rollouts
from quatrain.orchestrator.job.phase import Phase
from quatrain.orchestrator.job.run import JobFailed, JobRun
from quatrain.orchestrator.job.sealing import seal
from quatrain.orchestrator.peers.learner_session import LearnerSession
from quatrain.orchestrator.rollout.samples import ExpectedSample
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, rollout_samples, scoring, trainer_state
from quatrain.orchestrator.stages.evaluation import evaluate, evaluation_due
from quatrain.orchestrator.stages.logprob_probe import DRIFTED, drift, probe_logprobs, sampler_mismatch
from quatrain.orchestrator.stages.model_card import card_files
from quatrain.orchestrator.stages.step_metrics import SCALE, StepClock, collected_metrics, scale_warning
from quatrain.orchestrator.stages.training import (
    begin_stage,
    checkpoint_due,
    export,
    open_learner,
    save_checkpoint,
)
from quatrain.orchestrator.stages.working_reward import value_opening, working_reward
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import PPO
from quatrain.telemetry.logging import get_logger

log = get_logger("ppo")


async def run_ppo(run: JobRun) -> None:
    """Train what is left of the PPO steps and export the policy. Raises LearnerLost and whatever ends the job."""
    plan = run.plan
    await begin_stage(run, PPO)
    await _first_policy(run)
    capabilities = await run.unless_stopped(
        run.retry_while_unavailable(lambda: run.context.services.capabilities(30.0))
    )
    run.exact_logprobs = capabilities.exact_logprobs
    reward = await working_reward(run)
    session = await open_learner(run, value_opening(run, reward))
    await _forked_policy(run, session)
    if not run.view.sealed:
        probing = Phase(run, "comparing the logprobs of the services")
        await run.unless_stopped(probing.during(probe_logprobs(run, session)))
    stage = PpoStage(run, session, reward)
    if evaluation_due(run, session.step):
        # Either the one before the first step, or one that was lost after its step's checkpoint.
        await evaluate(run, session.step, reward)
    for step in range(session.step + 1, plan.spec.ppo.steps + 1):
        run.raise_if_asked_to_stop()
        await stage.run_step(step)
        if evaluation_due(run, step):
            await evaluate(run, step, reward)
    metrics = dict(run.view.metrics[PPO.name][-1].values)
    await export(run, session, PPO, card_files(plan, PPO, metrics), StageReport(metrics=metrics))


async def _first_policy(run: JobRun) -> None:
    """Publish version 0, which is the SFT model as it is: nothing is copied, an event names it."""
    if run.plan.forked_from is None and 0 not in run.view.policies:
        await run.append(PolicyPublished(stage=PPO.name, step=0, model=run.sft_model().at_version(0)))


async def _forked_policy(run: JobRun, session: LearnerSession) -> None:
    """Publish the first version of a fork. The learner writes it, which has it from the checkpoint."""
    step = session.step
    if run.plan.forked_from is not None and step == run.plan.first_version and step not in run.view.policies:
        publishing = Phase(run, f"publishing policy version {step}")
        policy = await publishing.during(run.retry_while_unavailable(lambda: session.publish(step)))
        await run.append(PolicyPublished(stage=PPO.name, step=step, model=policy))


class PpoStage:
    """The PPO steps that one attempt of the stage still has to run."""

    def __init__(self, run: JobRun, session: LearnerSession, reward: RewardSection) -> None:
        self._run = run
        self._session = session
        self._reward = reward
        self._staleness = run.plan.spec.ppo.staleness
        self._checkpoint_seconds = 0.0
        self._first_refusal = ""
        self._expected: dict[int, ExpectedBatch] = {}

    async def run_step(self, step: int) -> None:
        """Run one step, from its rollouts to its events."""
        run = self._run
        clock = StepClock()
        await self._expect_window(step)
        completed = run.view.completed.get(PPO.name, 0) >= step
        collected = await self._sealed_metrics(step, clock, completed)
        sealed = run.view.sealed[step]
        self._check_refusals(step, sealed)
        fault_point("owner.after_seal")
        with clock.phase("train"):
            training = Phase(run, f"training step {step}", every_step=True)
            result = await training.during(run.retry_while_unavailable(lambda: self._session.train(step, sealed.batch)))
        fault_point("owner.after_train")
        if not completed:
            with clock.phase("publish"):
                publishing = Phase(run, f"publishing policy version {step}")
                policy = await publishing.during(run.retry_while_unavailable(lambda: self._session.publish(step)))
            fault_point("owner.after_publish")
            metrics = result.metrics | collected
            clock.add("train_compute", result.compute_seconds)
            metrics |= clock.metrics(metrics, self._checkpoint_seconds)
            await run.append(
                StepCompleted(
                    stage=PPO.name,
                    step=step,
                    metrics=metrics,
                    elapsed=run.elapsed(),
                    tokens=result.tokens,
                    policy=policy,
                    learner=self._session.learner_id,
                )
            )
            current = run.view.conditions.get(DRIFTED)
            await run.condition(DRIFTED, drift(run.view.metrics[PPO.name], run.plan.dtype, current))
            await self._look_at_scale(step, metrics.get("reward/score_std"))
        fault_point("owner.after_step")
        self._expected.pop(step, None)
        await run.collector.forget("rollout", step)
        self._checkpoint_seconds = 0.0
        if checkpoint_due(run, PPO, step):
            self._checkpoint_seconds = await save_checkpoint(run, self._session, PPO, step)

    async def _look_at_scale(self, step: int, score_std: float | None) -> None:
        """Set a condition after the first step if scores have a bad scale; lift it at the first good ones."""
        warned = SCALE in self._run.view.conditions
        if score_std is None or not (warned or step == self._run.plan.first_version + 1):
            return
        warning = scale_warning(step, score_std)
        if not (warning and warned):  # Said once: the numbers of the next text would differ.
            await self._run.condition(SCALE, warning)

    async def _sealed_metrics(self, step: int, clock: StepClock, completed: bool) -> Metrics:
        """Seal the step unless it is sealed, and return the metrics that the learner cannot know."""
        run = self._run
        if step not in run.view.sealed:
            sealing = self._seal(step, clock)
        elif completed:
            return {}
        else:
            sealing = self._sealed_before(step)
        if completed or self._staleness == 0:
            return await sealing
        probing = sampler_mismatch(run, self._session, step - 1, sealing)
        collected, mismatch = await run.unless_stopped(probing)
        return collected | mismatch

    async def _expect_window(self, step: int) -> None:
        """Enqueue every unsealed step whose pinned policy version exists: step u needs max(v0, u-1-staleness)."""
        run = self._run
        last = min(step + self._staleness, run.plan.spec.ppo.steps)
        for wanted in range(step, last + 1):
            if wanted in run.view.sealed or wanted in self._expected:
                continue
            version = max(run.plan.first_version, wanted - 1 - self._staleness)
            policy = run.view.policies.get(version)
            if policy is None:
                break
            samples = await asyncio.to_thread(rollout_samples, run.plan, wanted)
            batch = self._batch(wanted, samples, policy.at_version(version))
            self._expected[wanted] = batch
            await run.unless_stopped(run.collector.expect(batch))

    def _batch(self, step: int, samples: tuple[ExpectedSample, ...], policy: ModelRef) -> ExpectedBatch:
        plan = self._run.plan
        penalty = plan.spec.ppo.generation.missing_eos_penalty
        return ExpectedBatch(
            purpose="rollout",
            step=step,
            samples=samples,
            policy=policy,
            policy_version=policy.policy_version or 0,
            prompts=plan.pinned.prompts,
            scorings=(scoring("score", self._reward, penalty),),
            reference=plan.pinned.reference or self._run.sft_model(),
            trainer_state=trainer_state(plan, step),
        )

    async def _seal(self, step: int, clock: StepClock) -> Metrics:
        """Collect the step's samples and seal them. Returns their metrics."""
        run = self._run
        batch = self._expected[step]
        with clock.phase("collect"):
            made = await run.unless_stopped(await_rollouts(run, batch))
        fault_point("owner.after_collect")
        metrics = await asyncio.to_thread(collected_metrics, made)

        async def describe(rows: Sequence[BatchRow], ref: ObjectRef) -> Payload:
            fault_point("owner.after_batch")
            counts = Counter(row.status for row in rows)
            return BatchSealed(
                stage=PPO.name,
                step=step,
                policy_version=batch.policy_version,
                key=ref.key,
                sha256=ref.sha256,
                size=ref.size,
                collected=metrics,
                rollouts=counts["rollout"],
                skipped=counts["skipped"],
                refused=counts["refused"],
            )

        with clock.phase("seal"):
            rows = await seal(run, batch, made, describe)
        self._first_refusal = next((row.reason for row in rows if row.status == "refused"), "")
        return metrics

    async def _sealed_before(self, step: int) -> Metrics:
        """Return the metrics of a batch that an earlier attempt or owner has collected."""
        return dict(self._run.view.sealed[step].collected)

    def _check_refusals(self, step: int, sealed: BatchSealed) -> None:
        """Raise JobFailed when too many samples are refused. It reads the event, so that a replay decides the same."""
        total = sealed.rollouts + sealed.skipped + sealed.refused
        share = sealed.refused / max(1, total)
        most = self._run.plan.spec.ppo.max_refused_share
        if share > most:
            raise JobFailed(
                f"{sealed.refused} of {total} samples of step {step} were refused (share {share:.2f}, "
                f"ppo.max_refused_share {most}); the first reason: {self._first_refusal or 'see the samples'}",
                reason="TOO_MANY_REFUSED",
            )
        if sealed.rollouts == 0:
            raise JobFailed(
                f"no sample of step {step} can be trained on: {sealed.skipped} skipped (no reward function gave a "
                f"score), {sealed.refused} refused; look at them with `quatrain job rollouts`",
                reason="EMPTY_BATCH",
            )
