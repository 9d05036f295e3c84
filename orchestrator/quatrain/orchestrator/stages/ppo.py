"""PPO: expect, collect, seal, train, publish, checkpoint; a replay takes the sealed batches that the log names."""

import asyncio
import uuid
from typing import Any

from quatrain.batches import write_batch
from quatrain.digests import sha256_hex
from quatrain.faults import fault_point
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.evaluation import evaluate, evaluation_due
from quatrain.orchestrator.learners import LearnerSession
from quatrain.orchestrator.model_card import card_files
from quatrain.orchestrator.preflight import DRIFTED, drift, probe_logprobs, sampler_mismatch
from quatrain.orchestrator.rewards import value_opening, working_reward
from quatrain.orchestrator.run import JobFailed, JobRun
from quatrain.orchestrator.sampling import ExpectedBatch, rollout_rows, scoring, trainer_state
from quatrain.orchestrator.sealing import batch_rows, status_counts
from quatrain.orchestrator.step_metrics import StepClock, collected_metrics, scale_warning
from quatrain.orchestrator.training import (
    begin_stage,
    checkpoint_due,
    export,
    metrics_of,
    open_learner,
    save_checkpoint,
)
from quatrain.orchestrator.waiting import collected
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2

log = get_logger("ppo")


async def run_ppo(run: JobRun) -> None:
    """Trains what is left of the PPO steps and exports the policy. Raises LearnerLost and whatever ends the job."""
    plan = run.plan
    await begin_stage(run, "ppo")
    await _first_policy(run)
    capabilities = await run.unless_stopped(run.patiently(lambda: run.around.services.capabilities(30.0)))
    run.exact_logprobs = capabilities.exact_logprobs
    reward = await working_reward(run)
    session = await open_learner(run, value_opening(run, reward))
    await _forked_policy(run, session)
    if not run.view.sealed:
        await run.unless_stopped(probe_logprobs(run, session))
    stage = PpoStage(run, session, reward)
    if evaluation_due(run, session.step):
        # The one before the first step, or one that was lost between its step's checkpoint and its own end.
        await evaluate(run, session.step, reward)
    for step in range(session.step + 1, plan.total_steps("ppo") + 1):
        run.obey()
        await stage.run_step(step)
        if evaluation_due(run, step):
            await evaluate(run, step, reward)
    metrics = run.view.metrics["ppo"][-1]
    await export(run, session, "ppo", card_files(plan, "ppo", metrics), {"metrics": metrics})


async def _first_policy(run: JobRun) -> None:
    """Version 0 is the SFT model as it is: nothing is copied, an event names it."""
    if run.plan.forked_from is None and 0 not in run.view.policies:
        model = {**run.sft_model().to_json(), "policy_version": 0}
        await run.append("policy_published", {"stage": "ppo", "step": 0, "model": model})


async def _forked_policy(run: JobRun, session: LearnerSession) -> None:
    """The first version of a fork is written by the learner, which has it from the checkpoint."""
    step = session.step
    if run.plan.forked_from is not None and step == run.plan.first_version and step not in run.view.policies:
        policy = await run.patiently(lambda: session.publish(step))
        model = {"uri": policy.uri, "digest": policy.digest, "policy_version": policy.policy_version}
        await run.append("policy_published", {"stage": "ppo", "step": step, "model": model})


class PpoStage:
    """The steps of one attempt."""

    def __init__(self, run: JobRun, session: LearnerSession, reward: RewardSection) -> None:
        self._run = run
        self._session = session
        self._reward = reward
        self._staleness = int(run.plan.ppo["staleness"])
        self._checkpoint_seconds = 0.0
        self._first_refusal = ""
        self._expected: dict[int, ExpectedBatch] = {}

    async def run_step(self, step: int) -> None:
        """One step, from its rollouts to its events."""
        run = self._run
        clock = StepClock()
        await self._expect_window(step)
        completed = run.view.completed.get("ppo", 0) >= step
        sums = await self._sealed_sums(step, clock, completed)
        sealed = run.view.sealed[step]
        self._check_refusals(step, sealed)
        fault_point("owner.after_seal")
        with clock.phase("train"):
            result = await run.patiently(lambda: self._session.train(step, _ref(sealed)))
        fault_point("owner.after_train")
        if not completed:
            with clock.phase("publish"):
                policy = await run.patiently(lambda: self._session.publish(step))
            fault_point("owner.after_publish")
            metrics = metrics_of(result) | sums
            clock.add("train_compute", result.compute_seconds)
            metrics |= clock.metrics(metrics, self._checkpoint_seconds)
            await run.append(
                "step_completed",
                {
                    "stage": "ppo",
                    "step": step,
                    "metrics": metrics,
                    "elapsed": run.elapsed(),
                    "tokens": _json(result.tokens),
                    "policy": {"uri": policy.uri, "digest": policy.digest, "policy_version": policy.policy_version},
                },
            )
            standing = run.view.conditions.get(DRIFTED)
            await run.condition(DRIFTED, drift(run.view.metrics["ppo"], run.plan.dtype, standing))
            if step == run.plan.first_version + 1:
                await run.condition("reward_scale", scale_warning(metrics.get("reward/score_std")))
        fault_point("owner.after_step")
        self._expected.pop(step, None)
        await run.collector.forget("rollout", step)
        self._checkpoint_seconds = 0.0
        if checkpoint_due(run, "ppo", step):
            self._checkpoint_seconds = await save_checkpoint(run, self._session, "ppo", step)

    async def _sealed_sums(self, step: int, clock: StepClock, completed: bool) -> dict[str, float | None]:
        """Sees to it that the step is sealed, and returns the metrics that the learner cannot know."""
        run = self._run
        if step not in run.view.sealed:
            sealing = self._seal(step, clock)
        elif completed:
            return {}
        else:
            sealing = self._sealed_before(run.view.sealed[step])
        if completed or self._staleness == 0:
            return await sealing
        probing = sampler_mismatch(run, self._session, step - 1, sealing)
        sums, mismatch = await run.unless_stopped(probing)
        return sums | mismatch

    async def _expect_window(self, step: int) -> None:
        """Enqueues every unsealed step whose pinned policy version exists: step u needs max(v0, u-1-staleness)."""
        run = self._run
        last = min(step + self._staleness, run.plan.total_steps("ppo"))
        for wanted in range(step, last + 1):
            if wanted in run.view.sealed or wanted in self._expected:
                continue
            version = max(run.plan.first_version, wanted - 1 - self._staleness)
            policy = run.view.policies.get(version)
            if policy is None:
                break
            batch = self._batch(wanted, version, ModelRef.from_json(policy))
            self._expected[wanted] = batch
            await run.unless_stopped(run.collector.expect(batch))

    def _batch(self, step: int, version: int, policy: ModelRef) -> ExpectedBatch:
        plan = self._run.plan
        penalty = float(plan.ppo["generation"]["missing_eos_penalty"])
        return ExpectedBatch(
            purpose="rollout",
            step=step,
            rows=rollout_rows(plan, step),
            policy=policy,
            policy_version=version,
            prompts=plan.prompts,
            scorings=(scoring("score", self._reward, penalty),),
            reference=plan.reference or self._run.sft_model(),
            trainer_state=trainer_state(plan, step),
        )

    async def _seal(self, step: int, clock: StepClock) -> dict[str, float | None]:
        """Collects the step's samples, writes them as one object and fixes it by an event. Returns their metrics."""
        run = self._run
        batch = self._expected[step]
        with clock.phase("collect"):
            results = await run.unless_stopped(collected(run, batch))
        fault_point("owner.after_collect")
        with clock.phase("seal"):
            prompts = await run.prompts(run.plan.prompts)
            rows = await asyncio.to_thread(batch_rows, run.plan, batch, results, prompts, await run.tokenizer())
            data = await asyncio.to_thread(write_batch, rows)
            key = f"jobs/{run.plan.job}/ppo/batches/{step}-{run.epoch}-{uuid.uuid4().hex[:8]}.parquet"
            await run.patiently(lambda: asyncio.to_thread(run.around.store.put_if_absent, key, data))
            fault_point("owner.after_batch")
            metrics = collected_metrics(results)
            await run.append(
                "batch_sealed",
                {
                    "stage": "ppo",
                    "step": step,
                    "policy_version": batch.policy_version,
                    "key": key,
                    "sha256": sha256_hex(data),
                    "size": len(data),
                    "collected": metrics,
                    **status_counts(rows),
                },
            )
        self._first_refusal = next((row.reason for row in rows if row.status == "refused"), "")
        return metrics

    async def _sealed_before(self, sealed: dict[str, Any]) -> dict[str, float | None]:
        """The metrics of a batch that an earlier attempt or owner has collected."""
        return dict(sealed.get("collected", {}))

    def _check_refusals(self, step: int, sealed: dict[str, Any]) -> None:
        """Looks at the event, so that a replay decides as the first time."""
        total = sealed["rollouts"] + sealed["skipped"] + sealed["refused"]
        share = sealed["refused"] / max(1, total)
        most = float(self._run.plan.ppo["max_refused_share"])
        if share > most:
            raise JobFailed(
                f"{sealed['refused']} of {total} samples of step {step} were refused (share {share:.2f}, "
                f"ppo.max_refused_share {most}); the first reason: {self._first_refusal or 'see the samples'}",
                reason="TOO_MANY_REFUSED",
            )
        if sealed["rollouts"] == 0:
            raise JobFailed(
                f"no sample of step {step} can be trained on: {sealed['skipped']} skipped (no reward function gave a "
                f"score), {sealed['refused']} refused; look at them with `quatrain job rollouts`",
                reason="EMPTY_BATCH",
            )


def _ref(sealed: dict[str, Any]) -> common_pb2.ObjectRef:
    return common_pb2.ObjectRef(key=sealed["key"], sha256=sealed["sha256"], size=sealed.get("size", 0))


def _json(ref: common_pb2.ObjectRef) -> dict[str, Any] | None:
    return {"key": ref.key, "sha256": ref.sha256, "size": ref.size} if ref.key else None
