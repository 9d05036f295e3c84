"""Collects the results of a job's tasks: each expected sample once, whatever the queue loses, repeats or mixes up.

What becomes of an entry that `_read` takes, by the batch that it belongs to:

| batch | the entry goes to | and leaves |
|---|---|---|
| expected: in `_pending` | its `PendingBatch` (`pending.py` has the states of a sample) | with `forget` of the batch |
| sealed: its step is at most `_forgotten` of its purpose | nowhere: it is deleted, with its object | |
| any other: not expected yet, or a newer owner's | `_unclaimed` | when `expect` takes it, or with `forget` |

What holds between two awaits:
- A batch is in `_pending` (from `expect` to `forget`) or in `_unclaimed`, never in both. `close` empties both.
- Every entry up to `_after` is with its batch as above, or dropped. After a wipe, which a new `_sentinel` or a
  closed job tells, and after `close`, `_after` is "0": all is read again. A result that comes twice changes nothing.
- No task is enqueued before `_caught_up`, which is set once, when the queue has no more entries: a former owner may
  have left results. From then on a chunk with missing samples is in `unsent`, or its task is in the queue; where
  neither holds, `_look_for_wipe`, `_look_for_losses` or `_look_for_stalls` finds out and puts it into `unsent`.
- `_closed` changes under `_open_lock` only, so that no wipe opens a job again that `close` has closed.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from functools import partial

from quatrain.concurrency import run_until_first_exit
from quatrain.errors import Corrupt, InvalidInput, NotFound, Unavailable
from quatrain.faults import fault_point
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.collected import CollectedSamples
from quatrain.orchestrator.rollout.large_results import (
    batch_prefix,
    delete_object,
    read_result,
    results_prefix,
)
from quatrain.orchestrator.rollout.pending import PendingBatch
from quatrain.orchestrator.rollout.samples import Purpose, Result, Stored
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, make_task
from quatrain.orchestrator.rollout.wire import decode_result, encode_task
from quatrain.queue import RolloutQueue
from quatrain.storage import ObjectStore
from quatrain.storage.folders import delete_prefix
from quatrain.telemetry.logging import get_logger

log = get_logger("collector")

TASK_DEADLINE_SECONDS = 600.0
STALLED_SECONDS = TASK_DEADLINE_SECONDS + 60.0
READ_COUNT = 64
"""Entries read at a time. Each may hold 64 KiB, and the event loop does nothing else while they are parsed."""
READ_BLOCK_SECONDS = 0.5
SENTINEL_SECONDS = 1.0
LOSS_POLL_SECONDS = 5.0
QUEUE_RETRY_SECONDS = 1.0
OBJECTS_AT_ONCE = 8


class Collector:
    """The collector of one owned job. `run` must be running; then `open`, `expect`, `collect`, `forget`, `close`."""

    def __init__(self, plan: Plan, epoch: int, queue: RolloutQueue, store: ObjectStore) -> None:
        self._plan = plan
        self._epoch = epoch
        self._queue = queue
        self._pool = plan.spec.pool
        self._store = store
        self._pending: dict[tuple[Purpose, int], PendingBatch] = {}
        self._unclaimed: dict[tuple[Purpose, int], list[tuple[str, Result, bytes]]] = {}
        self._forgotten: dict[Purpose, int] = {}
        """The highest step of each purpose that is sealed for good."""
        self._after = "0"
        self._sentinel = ""
        self._caught_up = asyncio.Event()
        self._closed = False
        self.away = ""
        """Why nothing can be read now: what the queue or the store said last; empty when all is well."""
        self._open_lock = asyncio.Lock()
        self._sending = asyncio.Lock()
        """Held while tasks are enqueued: `expect` and the reading loop both do that, and would send tasks twice."""
        self._deletions: asyncio.Queue[Callable[[], None]] = asyncio.Queue()
        """Deletions of objects, done beside the reading so that they do not hold up the job."""

    async def run(self, check_ownership: Callable[[], Awaitable[None]]) -> None:
        """Read until cancelled; the queue or the store being away only delays it. Raises what `check_ownership` does.

        That is called before the job is opened again: a job that has ended elsewhere must stay closed.
        """
        await run_until_first_exit(self._read_all(check_ownership), self._delete_objects())

    async def open(self) -> None:
        """Tell the workers that results are wanted. Raises Unavailable."""
        async with self._open_lock:
            await self._queue.open_job(self._plan.job)
            self._closed = False

    async def close(self) -> None:
        """Expect nothing any more: forget all batches, in the queue and in the store, too. Raises Unavailable."""
        async with self._open_lock:
            self._closed = True
            self._pending.clear()
            self._unclaimed.clear()
            self._after = "0"
            await self._queue.close_job(self._plan.job)
        await asyncio.to_thread(delete_prefix, self._store, results_prefix(self._plan.job))

    async def _read_all(self, check_ownership: Callable[[], Awaitable[None]]) -> None:
        checked, looked = 0.0, time.monotonic()
        while True:
            try:
                if time.monotonic() - checked > SENTINEL_SECONDS:
                    await self._look_for_wipe(check_ownership)
                    checked = time.monotonic()
                for pending in list(self._pending.values()):
                    await self._send(pending)
                await self._read(READ_BLOCK_SECONDS if self._caught_up.is_set() else 0.0)
                for pending in list(self._pending.values()):
                    await self._read_objects(pending)
                if time.monotonic() - looked > LOSS_POLL_SECONDS:
                    await self._look_for_losses()
                    looked = time.monotonic()
                self._look_for_stalls()
                self.away = ""
            except Unavailable as error:
                log.warning("queue or object store is away", job=self._plan.job, error=error.message)
                self.away = error.message
                await asyncio.sleep(QUEUE_RETRY_SECONDS)

    async def expect(self, batch: ExpectedBatch) -> None:
        """Enqueue what is missing of a batch; a batch that is expected already is left alone."""
        await self._caught_up.wait()
        if batch.key in self._pending:
            return
        pending = await asyncio.to_thread(PendingBatch.of, batch, self._plan.spec.ppo.chunk_size)
        self._pending[batch.key] = pending
        for entry, result, data in self._unclaimed.pop(batch.key, []):
            pending.take(entry, result, data)
        pending.unsent = pending.missing_chunks()
        try:
            await self._send(pending)
        except Unavailable as error:
            log.warning("queue is away, tasks are enqueued later", job=self._plan.job, error=error.message)
        fault_point("owner.after_enqueue")

    async def collect(self, batch: ExpectedBatch) -> CollectedSamples:
        """Return results in the order of the batch's samples. Raises RunFailed when a task failed for good."""
        await self.expect(batch)
        pending = self._pending[batch.key]
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        return CollectedSamples([pending.results[sample.rollout_id] for sample in batch.samples])

    def pending(self, batch: ExpectedBatch) -> PendingBatch | None:
        """Return the state of a batch that is expected, None for any other."""
        return self._pending.get(batch.key)

    async def forget(self, purpose: Purpose, step: int) -> None:
        """Delete the results of a batch that is sealed for good, and of those before it that a former owner left."""
        self._forgotten[purpose] = max(step, self._forgotten.get(purpose, step))
        pending = self._pending.pop((purpose, step), None)
        entries = pending.entries if pending is not None else []
        with_objects = {step} if pending is not None and pending.has_objects else set()
        for key in [key for key in self._unclaimed if key[0] == purpose and key[1] <= step]:
            for entry, result, _ in self._unclaimed.pop(key):
                entries.append(entry)
                if isinstance(result, Stored):
                    with_objects.add(key[1])
        for each in with_objects:  # All of the batch's, even those that no entry names because their worker was late.
            prefix = batch_prefix(self._plan.job, purpose, each)
            self._deletions.put_nowait(partial(delete_prefix, self._store, prefix))
        if not entries:
            return
        try:
            await self._queue.delete_results(self._plan.job, entries)
        except Unavailable as error:
            log.warning("queue is away, entries stay until the job ends", job=self._plan.job, error=error.message)

    async def _look_for_wipe(self, check_ownership: Callable[[], Awaitable[None]]) -> None:
        """Open the job when it is not, and enqueue again what the queue has lost.

        A job may be closed though nothing was wiped: a restarted queue need not know what it was last told.
        """
        async with self._open_lock:
            sentinel = await self._queue.sentinel()
            if self._closed or (sentinel == self._sentinel and await self._queue.is_open(self._plan.job)):
                return
            wiped = self._sentinel != ""
            if wiped:
                await check_ownership()
            await self._queue.open_job(self._plan.job)
            self._sentinel = sentinel
        if wiped:
            log.warning("queue was wiped: missing tasks are enqueued again", job=self._plan.job)
            self._after = "0"
            for pending in list(self._pending.values()):
                pending.entries.clear()
                pending.unsent = pending.missing_chunks()

    async def _look_for_losses(self) -> None:
        """Enqueue again what the queue has lost without a wipe: a Redis that loses power forgets its last second."""
        batches = {
            entry: (pending, chunk)
            for pending in self._pending.values()
            if not pending.done.is_set()
            for chunk in pending.missing_chunks() - pending.unsent
            if (entry := pending.tasks.get(chunk)) is not None
        }
        gone = await self._queue.gone(self._pool, list(batches))
        if not gone:
            return
        while await self._read(0.0):
            pass  # A task that is gone because it was completed has its results in the queue.
        for entry in gone:
            pending, chunk = batches[entry]
            if self._pending.get(pending.batch.key) is not pending:
                continue  # The job was closed meanwhile, or the batch is sealed.
            if pending.tasks.get(chunk) == entry and chunk in pending.missing_chunks():
                pending.lose_chunk(chunk)

    async def _read(self, block: float) -> bool:
        """Take some results. Returns False when there was none within `block` seconds."""
        entries = await self._queue.read_results(self._plan.job, self._after, count=READ_COUNT, block=block)
        done = []
        for entry, payload in entries:
            self._after = entry
            try:
                result = decode_result(payload)
            except Corrupt:
                log.error("an entry that is no result was dropped", job=self._plan.job, entry=entry)
                done.append(entry)
                continue
            place = result.place
            pending = self._pending.get(place.batch)
            if pending is not None:
                pending.take(entry, result, payload)
            elif place.step <= self._forgotten.get(place.purpose, -1):
                done.append(entry)
                if isinstance(result, Stored):
                    self._deletions.put_nowait(partial(delete_object, self._store, self._plan.job, result.object.key))
            else:  # Not ours to delete: a newer owner may be ahead of us, and we have not read its events yet.
                self._unclaimed.setdefault(place.batch, []).append((entry, result, payload))
        if done:
            await self._queue.delete_results(self._plan.job, done)
        if not entries:
            self._caught_up.set()
        return bool(entries)

    async def _read_objects(self, pending: PendingBatch) -> None:
        """Read the objects that entries name. A result that cannot be read is made again like one that never came."""
        while pending.unread:
            some = dict(list(pending.unread.items())[:OBJECTS_AT_ONCE])
            found = await asyncio.gather(*(asyncio.to_thread(self._read_object, entry) for entry in some.values()))
            for rollout, data in zip(some, found, strict=True):
                if data is not None:
                    pending.accept(rollout, data)
                else:
                    pending.lose(rollout)

    def _read_object(self, entry: Stored) -> bytes | None:
        """Return the result, None when its object is gone or damaged."""
        try:
            return read_result(self._store, self._plan.job, entry)
        except (NotFound, Corrupt, InvalidInput) as error:
            place = entry.place
            log.warning("a result is lost", job=place.job, step=place.step, chunk=place.chunk, error=error.message)
            return None

    async def _delete_objects(self) -> None:
        while True:
            delete = await self._deletions.get()
            try:
                await asyncio.to_thread(delete)
            except (Unavailable, Corrupt, InvalidInput) as error:
                log.warning("objects stay until the job ends", job=self._plan.job, error=error.message)

    def _look_for_stalls(self) -> None:
        for pending in self._pending.values():
            waited = time.monotonic() - pending.progress
            if not pending.done.is_set() and waited > STALLED_SECONDS:
                log.warning("no result for long: tasks are enqueued again", job=self._plan.job, step=pending.batch.step)
                pending.unsent = pending.missing_chunks()
                pending.progress = time.monotonic()

    async def _send(self, pending: PendingBatch) -> None:
        """Enqueue the tasks of `unsent`; one whose fate is unknown is sent again, which does no harm."""
        if not pending.unsent:
            return
        async with self._sending:
            pending.progress = time.monotonic()
            for chunk in sorted(pending.unsent):
                if chunk in pending.unsent:
                    task = make_task(self._plan, pending.batch, self._epoch, chunk, TASK_DEADLINE_SECONDS)
                    pending.tasks[chunk] = await self._queue.add_task(self._pool, task.job, encode_task(task))
                    pending.unsent.discard(chunk)
