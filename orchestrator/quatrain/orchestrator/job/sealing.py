"""Sealing: the samples of a batch become one immutable object, and an event names it. From there on they are fixed.

A rollout is consumed if and only if it stands in a sealed batch. The object has no authority before the event: an owner
that dies in between leaves one that nobody reads, and the next owner seals another.
"""

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Sequence

from quatrain.batches import BatchRow, write_batch
from quatrain.digests import sha256_hex
from quatrain.joblog.payloads import Payload
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.rollout.batch_rows import batch_rows
from quatrain.orchestrator.rollout.samples import Made
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.refs import ObjectRef

FOLDERS = {"rollout": "batches", "eval": "evals"}
"""Below the stage's folder, by the purpose of the batch."""

MakeEvent = Callable[[Sequence[BatchRow], ObjectRef], Awaitable[Payload]]
"""Builds the event that fixes the batch, from its rows and the object that holds them; called when that is written."""


async def seal(run: JobRun, batch: ExpectedBatch, made: Sequence[Made], make_event: MakeEvent) -> list[BatchRow]:
    """Write the collected samples of a batch as one object and fix it by an event. Return its rows.

    Each expected sample is a row: a rollout, a skip or a refusal with its reason. Raises Fenced when the job has a
    newer owner, and what asks the job to stop while the store is away.
    """
    prompts = await run.prompts(batch.prompts)
    rows = await asyncio.to_thread(batch_rows, run.plan, batch, made, prompts, await run.tokenizer())
    data = await asyncio.to_thread(write_batch, rows)
    name = f"{batch.step}-{run.epoch}-{uuid.uuid4().hex[:8]}.parquet"
    ref = ObjectRef(f"jobs/{run.plan.job}/ppo/{FOLDERS[batch.purpose]}/{name}", sha256_hex(data), len(data))
    await run.retry_in_thread(run.context.store.put_if_absent, ref.key, data)
    await run.append(await make_event(rows, ref))
    return rows
