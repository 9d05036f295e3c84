"""Evaluations on held-out prompts: same seeds each time, sealed like batches, paired with the SFT model by prompt."""

import asyncio
import uuid
from collections.abc import Sequence

from quatrain.algorithms.evaluation import evaluation_metrics
from quatrain.batches import BatchRow, read_batch, write_batch
from quatrain.digests import sha256_hex
from quatrain.faults import fault_point
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.run import JobRun
from quatrain.orchestrator.sampling import ExpectedBatch, eval_rows, scoring, trainer_state
from quatrain.orchestrator.sealing import batch_rows
from quatrain.orchestrator.waiting import collected
from quatrain.refs import ModelRef
from quatrain.storage.folders import read_object


def evaluation_due(run: JobRun, step: int) -> bool:
    """True before the job's first step, at every `eval_every` and at the last step, unless the log has it already."""
    if run.plan.eval_prompts is None or step in run.view.evaluations:
        return False
    every = int(run.plan.ppo["eval_every"])
    return step % every == 0 or step == run.plan.total_steps("ppo") or not run.view.evaluations


async def evaluate(run: JobRun, step: int, reward: RewardSection) -> None:
    """Samples the policy of a step on the held-out prompts, scores, seals, and records the eval/* metrics."""
    plan = run.plan
    assert plan.eval_prompts is not None, "no evaluation without eval_prompts"
    penalty = float(plan.ppo["generation"]["missing_eos_penalty"])
    scorings = [scoring("score", reward, penalty)]
    if plan.eval_gold is not None:
        scorings.append(scoring("gold", plan.eval_gold, 0.0))
    batch = ExpectedBatch(
        purpose="eval",
        step=step,
        rows=eval_rows(plan),
        policy=ModelRef.from_json(run.view.policies[step]),
        policy_version=step,
        prompts=plan.eval_prompts,
        scorings=tuple(scorings),
        reference=None,
        trainer_state=trainer_state(plan, step),
    )
    results = await run.unless_stopped(collected(run, batch))
    prompts = await run.prompts(plan.eval_prompts)
    rows = await asyncio.to_thread(batch_rows, plan, batch, results, prompts, await run.tokenizer())
    first = await _first_rows(run) if run.view.evaluations else rows
    data = await asyncio.to_thread(write_batch, rows)
    key = f"jobs/{plan.job}/ppo/evals/{step}-{run.epoch}-{uuid.uuid4().hex[:8]}.parquet"
    await run.patiently(lambda: asyncio.to_thread(run.around.store.put_if_absent, key, data))
    fault_point("owner.after_evaluation")
    await run.append(
        "evaluated",
        {
            "step": step,
            "key": key,
            "sha256": sha256_hex(data),
            "size": len(data),
            "metrics": eval_metrics(rows, first),
        },
    )
    fault_point("owner.after_evaluated")
    await run.collector.forget("eval", step)


async def _first_rows(run: JobRun) -> list[BatchRow]:
    first = run.view.evaluations[min(run.view.evaluations)]
    data = await run.patiently(lambda: asyncio.to_thread(read_object, run.around.store, first["key"], first["sha256"]))
    return await asyncio.to_thread(read_batch, data)


def eval_metrics(rows: Sequence[BatchRow], first: Sequence[BatchRow]) -> dict[str, float | None]:
    """The eval/* metrics of `evaluation_metrics`, over prompts with a value here and in the first one."""
    scores, first_scores = _paired([row.score for row in rows], [row.score for row in first])
    gold, first_gold = _paired([row.gold for row in rows], [row.gold for row in first])
    if not gold:
        return evaluation_metrics(scores, first_scores)
    return evaluation_metrics(scores, first_scores, gold, first_gold)


def _paired(after: Sequence[float | None], before: Sequence[float | None]) -> tuple[list[float], list[float]]:
    pairs = [(a, b) for a, b in zip(after, before, strict=True) if a is not None and b is not None]
    return [a for a, _ in pairs], [b for _, b in pairs]
