"""Evaluations on held-out prompts: same seeds each time, sealed like batches, paired with the SFT model by prompt."""

import asyncio
from collections.abc import Sequence

from quatrain.algorithms.evaluation import evaluation_metrics
from quatrain.batches import BatchRow, read_batch
from quatrain.faults import fault_point
from quatrain.joblog.payloads import Evaluated, Payload
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.job.await_rollouts import await_rollouts
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.job.sealing import seal
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, eval_samples, scoring, trainer_state
from quatrain.refs import ObjectRef
from quatrain.storage.folders import read_object


def evaluation_due(run: JobRun, step: int) -> bool:
    """Return True before the first step, at every `eval_every` and at the last step, unless the log has it already."""
    if run.plan.pinned.eval_prompts is None or step in run.view.evaluations:
        return False
    ppo = run.plan.spec.ppo
    return step % ppo.eval_every == 0 or step == ppo.steps or not run.view.evaluations


async def evaluate(run: JobRun, step: int, reward: RewardSection) -> None:
    """Sample the policy of a step on the held-out prompts, score, seal, and record the eval/* metrics."""
    plan, pinned = run.plan, run.plan.pinned
    assert pinned.eval_prompts is not None, "no evaluation without eval_prompts"
    scorings = [scoring("score", reward, plan.spec.ppo.generation.missing_eos_penalty)]
    if pinned.eval_gold is not None:
        scorings.append(scoring("gold", pinned.eval_gold, 0.0))
    batch = ExpectedBatch(
        purpose="eval",
        step=step,
        samples=await asyncio.to_thread(eval_samples, plan),
        policy=run.view.policies[step],
        policy_version=step,
        prompts=pinned.eval_prompts,
        scorings=tuple(scorings),
        reference=None,
        trainer_state=trainer_state(plan, step),
    )
    made = await run.unless_stopped(await_rollouts(run, batch))

    async def describe(rows: Sequence[BatchRow], ref: ObjectRef) -> Payload:
        first = await _first_rows(run) if run.view.evaluations else rows
        fault_point("owner.after_evaluation")
        metrics = await asyncio.to_thread(eval_metrics, rows, first)
        return Evaluated(step=step, key=ref.key, sha256=ref.sha256, size=ref.size, metrics=metrics)

    await seal(run, batch, made, describe)
    fault_point("owner.after_evaluated")
    await run.collector.forget("eval", step)


async def _first_rows(run: JobRun) -> list[BatchRow]:
    first = run.view.evaluations[min(run.view.evaluations)].batch
    data = await run.retry_in_thread(read_object, run.context.store, first.key, first.sha256)
    return await asyncio.to_thread(read_batch, data)


def eval_metrics(rows: Sequence[BatchRow], first: Sequence[BatchRow]) -> dict[str, float | None]:
    """Return the eval/* metrics of `evaluation_metrics`, over prompts with a value here and in the first one."""
    scores, first_scores = _paired([row.score for row in rows], [row.score for row in first])
    gold, first_gold = _paired([row.gold for row in rows], [row.gold for row in first])
    if not gold:
        return evaluation_metrics(scores, first_scores)
    return evaluation_metrics(scores, first_scores, gold, first_gold)


def _paired(after: Sequence[float | None], before: Sequence[float | None]) -> tuple[list[float], list[float]]:
    pairs = [(a, b) for a, b in zip(after, before, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]
