"""Collects the results of a job's tasks: each expected sample once, whatever the queue loses, repeats or mixes up."""

import asyncio
import time
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from quatrain.errors import QuatrainError, RunFailed, Unavailable
from quatrain.faults import fault_point
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.sampling import PURPOSES, ExpectedBatch, chunks, make_tasks
from quatrain.queue import RolloutQueue
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import rollout_pb2

log = get_logger("collector")

TASK_DEADLINE_SECONDS = 600.0
STALLED_SECONDS = TASK_DEADLINE_SECONDS + 60.0
READ_COUNT = 256
READ_BLOCK_SECONDS = 0.5
SENTINEL_SECONDS = 1.0
QUEUE_RETRY_SECONDS = 1.0
NAMES = {value: name for name, value in PURPOSES.items()}


@dataclass
class _Pending:
    batch: ExpectedBatch
    chunk_of: dict[str, int]
    results: dict[str, rollout_pb2.RolloutResult] = field(default_factory=dict)
    entries: list[str] = field(default_factory=list)
    unsent: set[int] = field(default_factory=set)
    """Chunks whose tasks have yet to be enqueued: what the queue refuses now, `Collector.run` sends later."""
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: QuatrainError | None = None
    progress: float = field(default_factory=time.monotonic)

    def missing_chunks(self) -> set[int]:
        return {chunk for rollout, chunk in self.chunk_of.items() if rollout not in self.results}


class Collector:
    """One for each owned job. `run` must be running; then `expect`, `collect`, `forget`."""

    def __init__(self, plan: Plan, epoch: int, queue: RolloutQueue, pool: str) -> None:
        self._plan = plan
        self._epoch = epoch
        self._queue = queue
        self._pool = pool
        self._pending: dict[tuple[str, int], _Pending] = {}
        self._loose: dict[tuple[str, int], list[tuple[str, rollout_pb2.RolloutResult]]] = {}
        self._forgotten: dict[str, int] = {}
        """The highest step of each purpose that is sealed for good."""
        self._after = "0"
        self._sentinel = ""
        self._drained = asyncio.Event()

    async def run(self) -> None:
        """Reads until cancelled; the queue being away only delays it."""
        checked = 0.0
        while True:
            try:
                if time.monotonic() - checked > SENTINEL_SECONDS:
                    await self._look_for_wipe()
                    checked = time.monotonic()
                for pending in list(self._pending.values()):
                    await self._send(pending)
                await self._read()
                self._look_for_stalls()
            except Unavailable as error:
                log.warning("queue is away", job=self._plan.job, error=error.message)
                await asyncio.sleep(QUEUE_RETRY_SECONDS)

    async def expect(self, batch: ExpectedBatch) -> None:
        """Enqueues what is missing of a batch; a batch that is expected already is left alone."""
        await self._drained.wait()
        if batch.key in self._pending:
            return
        chunk_of = {row.rollout_id: number for number, rows in enumerate(chunks(self._plan, batch)) for row in rows}
        pending = _Pending(batch, chunk_of)
        self._pending[batch.key] = pending
        for entry, result in self._loose.pop(batch.key, []):
            self._take(pending, entry, result)
        pending.unsent = pending.missing_chunks()
        try:
            await self._send(pending)
        except Unavailable as error:
            log.warning("queue is away, tasks are enqueued later", job=self._plan.job, error=error.message)
        fault_point("owner.after_enqueue")

    async def collect(self, batch: ExpectedBatch) -> list[rollout_pb2.RolloutResult]:
        """Results in the order of the batch's rows. Raises RunFailed when a task failed for good."""
        await self.expect(batch)
        pending = self._pending[batch.key]
        await pending.done.wait()
        if pending.error is not None:
            raise pending.error
        return [pending.results[row.rollout_id] for row in batch.rows]

    async def forget(self, purpose: str, step: int) -> None:
        """Deletes the entries of a batch that is sealed for good, and of those before it that a former owner left."""
        self._forgotten[purpose] = max(step, self._forgotten.get(purpose, step))
        pending = self._pending.pop((purpose, step), None)
        entries = pending.entries if pending is not None else []
        for key in [key for key in self._loose if key[0] == purpose and key[1] <= step]:
            entries += [entry for entry, _ in self._loose.pop(key)]
        if not entries:
            return
        try:
            await self._queue.delete_results(self._plan.job, entries)
        except Unavailable as error:
            log.warning("queue is away, entries stay until the job ends", job=self._plan.job, error=error.message)

    async def _look_for_wipe(self) -> None:
        sentinel = await self._queue.sentinel()
        if sentinel == self._sentinel:
            return
        wiped = self._sentinel != ""
        await self._queue.open_job(self._plan.job)
        self._sentinel = sentinel
        if wiped:
            log.warning("queue was wiped: missing tasks are enqueued again", job=self._plan.job)
            self._after = "0"
            for pending in list(self._pending.values()):
                pending.entries.clear()
                pending.unsent = pending.missing_chunks()

    async def _read(self) -> None:
        block = READ_BLOCK_SECONDS if self._drained.is_set() else 0.0
        entries = await self._queue.read_results(self._plan.job, self._after, count=READ_COUNT, block=block)
        done = []
        for entry, payload in entries:
            self._after = entry
            try:
                result = rollout_pb2.RolloutResult.FromString(payload)
            except DecodeError:
                log.error("an entry that is no result was dropped", job=self._plan.job, entry=entry)
                done.append(entry)
                continue
            key = (NAMES.get(result.purpose, ""), result.step)
            pending = self._pending.get(key)
            if pending is not None:
                self._take(pending, entry, result)
            elif result.step <= self._forgotten.get(key[0], -1):
                done.append(entry)
            else:  # Not ours to delete: a newer owner may be ahead of us, and not have told us yet.
                self._loose.setdefault(key, []).append((entry, result))
        if done:
            await self._queue.delete_results(self._plan.job, done)
        if not entries:
            self._drained.set()

    def _take(self, pending: _Pending, entry: str, result: rollout_pb2.RolloutResult) -> None:
        """First result of a rollout id wins; results of another policy version are not of this batch."""
        pending.entries.append(entry)
        batch = pending.batch
        if result.policy.digest != batch.policy.digest or result.policy.policy_version != batch.policy_version:
            return
        if result.error_reason:
            if result.chunk not in pending.missing_chunks():
                return  # Another worker has done the task meanwhile.
            pending.error = RunFailed(
                f"{batch.purpose} of step {batch.step} failed: {result.error_message}", reason=result.error_reason
            )
            pending.done.set()
            return
        rollout = result.row.rollout_id
        if rollout not in pending.chunk_of or rollout in pending.results:
            return
        pending.results[rollout] = result
        pending.progress = time.monotonic()
        if len(pending.results) == len(pending.chunk_of):
            pending.done.set()

    def _look_for_stalls(self) -> None:
        for pending in self._pending.values():
            waited = time.monotonic() - pending.progress
            if not pending.done.is_set() and waited > STALLED_SECONDS:
                log.warning("no result for long: tasks are enqueued again", job=self._plan.job, step=pending.batch.step)
                pending.unsent = pending.missing_chunks()
                pending.progress = time.monotonic()

    async def _send(self, pending: _Pending) -> None:
        """Enqueues the tasks of `unsent`; one whose fate is unknown is sent again, which does no harm."""
        if not pending.unsent:
            return
        pending.progress = time.monotonic()
        for task in make_tasks(self._plan, pending.batch, self._epoch, pending.unsent, TASK_DEADLINE_SECONDS):
            if task.chunk in pending.unsent:
                await self._queue.add_task(self._pool, self._plan.job, task.SerializeToString())
                pending.unsent.discard(task.chunk)
