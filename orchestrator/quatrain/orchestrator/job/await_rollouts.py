"""Waits for rollouts and says so in the log: how many there are, and that none comes."""

import asyncio

from quatrain.concurrency import cancel_and_wait
from quatrain.orchestrator.job.phase import Phase
from quatrain.orchestrator.job.run import UNAVAILABLE, JobRun
from quatrain.orchestrator.rollout.collected import CollectedSamples
from quatrain.orchestrator.rollout.sampling import ExpectedBatch

ROLLOUTS = "rollouts"
"""Name of the condition that says that no result comes."""
POLL_SECONDS = 2.0
SILENT_SECONDS = 60.0


async def await_rollouts(run: JobRun, batch: ExpectedBatch) -> CollectedSamples:
    """Return what `Collector.collect` returns, and set conditions of the job while it waits."""
    work, phase = asyncio.create_task(run.collector.collect(batch)), _phase(run, batch)
    try:
        while not (await asyncio.wait({work}, timeout=POLL_SECONDS))[0]:
            if run.collector.away:
                if UNAVAILABLE not in run.view.conditions:
                    await run.condition(UNAVAILABLE, run.collector.away)
                continue
            await run.condition(UNAVAILABLE, None)
            await _say_silence(run, batch)
            await phase.tell(_progress(run, batch))
        for name in (UNAVAILABLE, ROLLOUTS):
            await run.condition(name, None)
        return await work
    finally:
        await cancel_and_wait(work)


def _phase(run: JobRun, batch: ExpectedBatch) -> Phase:
    match batch.purpose:
        case "rollout":
            return Phase(run, f"collecting the rollouts of step {batch.step}", every_step=True)
        case "eval":
            return Phase(run, f"evaluating the policy of step {batch.step}")
        case "offset":
            return Phase(run, "measuring the offset of the reward")


def _progress(run: JobRun, batch: ExpectedBatch) -> str:
    pending = run.collector.pending(batch)
    return f"{0 if pending is None else len(pending.results)} of {len(batch.samples)} completions"


async def _say_silence(run: JobRun, batch: ExpectedBatch) -> None:
    """Set or lift the condition of silence, once for each silence: the numbers of the next text would differ."""
    pending = run.collector.pending(batch)
    if pending is None or pending.silent_seconds() < SILENT_SECONDS:
        await run.condition(ROLLOUTS, None)
    elif ROLLOUTS not in run.view.conditions:
        missing, all_of_them = len(pending.chunk_of) - len(pending.results), len(pending.chunk_of)
        await run.condition(
            ROLLOUTS,
            f"{batch.purpose} of step {batch.step} with policy version {batch.policy_version}: nothing has come for "
            f"{SILENT_SECONDS:g} s, {missing} of {all_of_them} samples are missing; look whether rollout workers, "
            "generation, reward and reference run, and at the workers' logs",
        )
