"""Leases tasks of a pool, keeps the leases alive while it works on them, and hands the results to the jobs' owners."""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress

from quatrain.concurrency import cancel_and_wait, gather_or_cancel
from quatrain.data.tables import PromptTable, read_prompts
from quatrain.errors import TRANSIENT_ERRORS, Corrupt, QuatrainError, Unavailable
from quatrain.faults import fault_point
from quatrain.orchestrator.peers.service_clients import ServiceClients
from quatrain.orchestrator.rollout.large_results import (
    Packed,
    discard_objects,
    pack,
    write_objects,
)
from quatrain.orchestrator.rollout.samples import Failed, Place, Result, RolloutTask
from quatrain.orchestrator.rollout.task import run_task
from quatrain.orchestrator.rollout.wire import decode_task
from quatrain.queue import Lease, RolloutQueue
from quatrain.refs import ObjectRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_object
from quatrain.telemetry.logging import get_logger

log = get_logger("rollout")

MAX_REFUSALS = 2
"""Tries after which an error that is not transient is the task's result; the owner decides what follows for the job."""

MAX_MESSAGE = 4000
"""Characters of an error's message that are sent to the owner."""

TABLES_KEPT = 8
LEASE_BLOCK_SECONDS = 1.0
RETRY_SECONDS = 0.3
QUEUE_RETRY_SECONDS = 1.0
FORGET_EVERY_SECONDS = 600.0
FORGET_AFTER_SECONDS = 3600.0


class RolloutWorker:
    """A worker on `concurrency` tasks at once. `idle` is the lease in seconds: a third of it is the renewal period.

    A sample that takes more than `inline_bytes` does not go through the queue but through the store.
    """

    def __init__(
        self,
        *,
        name: str,
        pool: str,
        concurrency: int,
        idle: float,
        store: ObjectStore,
        queue: RolloutQueue,
        services: ServiceClients,
        inline_bytes: int,
    ) -> None:
        self._name = name
        self._pool = pool
        self._concurrency = concurrency
        self._idle = idle
        self._store = store
        self._queue = queue
        self._services = services
        self._inline_bytes = inline_bytes
        self._tables: OrderedDict[str, PromptTable] = OrderedDict()
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Lease no new task; `run` returns when the running ones are done, or cannot be done now."""
        self._stopping.set()
        self._services.stop_waiting()

    async def run(self) -> None:
        """Work until `stop`."""
        await gather_or_cancel([self._forget_workers(), *(self._lane(lane) for lane in range(self._concurrency))])

    async def _forget_workers(self) -> None:
        """Remove the names of dead workers from the queue, which keeps them: each process has a name of its own."""
        while not self._stopping.is_set():
            with suppress(Unavailable):
                for name in await self._queue.forget_workers(self._pool, idle=FORGET_AFTER_SECONDS):
                    log.info("worker was silent for long, its name is forgotten", worker=name)
            with suppress(TimeoutError):
                async with asyncio.timeout(FORGET_EVERY_SECONDS):
                    await self._stopping.wait()

    async def _lane(self, lane: int) -> None:
        """Do one task after the other. Each lane is a consumer of its own, so that its leases can be told apart."""
        worker = f"{self._name}-{lane}"
        while not self._stopping.is_set():
            try:
                leases = await self._queue.reclaim(self._pool, worker, idle=self._idle, count=1)
                if not leases:
                    leases = await self._queue.lease(self._pool, worker, count=1, block=LEASE_BLOCK_SECONDS)
            except Unavailable as error:
                log.warning("queue is away", error=error.message)
                await asyncio.sleep(QUEUE_RETRY_SECONDS)
                continue
            for lease in leases:
                await self._work(lease, worker)
        with suppress(Unavailable):
            await self._queue.leave(self._pool, worker)

    async def _work(self, lease: Lease, worker: str) -> None:
        """Do a task for as long as the lease is ours."""
        try:
            task = await asyncio.to_thread(decode_task, lease.payload)
        except Corrupt:
            log.error("an entry that is no task was dropped", job=lease.job, entry=lease.entry_id)
            with suppress(Unavailable):  # Otherwise it is leased again, and dropped again.
                await self._queue.complete(lease, [])
            return
        renewal = asyncio.create_task(self._keep(lease, task))
        work = asyncio.create_task(self._do(lease, task, worker))
        try:
            await asyncio.wait({renewal, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done():
                log.info("task dropped: it is no longer ours", job=task.job, step=task.step, chunk=task.chunk)
                return
            await work
        finally:
            await cancel_and_wait(renewal, work)

    async def _do(self, lease: Lease, task: RolloutTask, worker: str) -> None:
        fault_point("rollout.after_lease")
        packed = Packed()
        if await self._is_wanted(lease):
            results = await self._results(task, worker)
            if results is None:
                return
            packed = await asyncio.to_thread(pack, results, self._inline_bytes)
        fault_point("rollout.before_complete")
        await self._hand_over(lease, packed)
        fault_point("rollout.after_complete")

    async def _is_wanted(self, lease: Lease) -> bool:
        """Return False when the job has ended: nobody reads its results any more. In doubt the task is done.

        An owner opens a job before it adds tasks, and again when the queue was wiped: what is dropped in between is
        among the tasks that it then adds once more.
        """
        try:
            wanted = await self._queue.is_open(lease.job)
        except Unavailable:
            return True
        if not wanted:
            log.info("task dropped: its job has ended", job=lease.job)
        return wanted

    async def _results(self, task: RolloutTask, worker: str) -> Sequence[Result] | None:
        """Return the task's results, or its failure; None when it should be left to be leased again."""
        deadline = time.monotonic() + task.deadline_seconds
        refusals = 0
        while True:
            try:
                prompts = await self._prompt_table(task.prompts)
                return await run_task(task, prompts, self._services, worker, deadline)
            except TRANSIENT_ERRORS as error:
                if time.monotonic() > deadline or self._stopping.is_set():
                    log.warning("task left for another worker", job=task.job, step=task.step, error=error.message)
                    return None
                log.info("task tried again", job=task.job, step=task.step, chunk=task.chunk, error=error.message)
                await asyncio.sleep(RETRY_SECONDS)
            except QuatrainError as error:
                refusals += 1
                log.warning("task failed", job=task.job, step=task.step, chunk=task.chunk, error=error.message)
                if refusals >= MAX_REFUSALS:
                    return [_failure(task, error, worker)]

    async def _hand_over(self, lease: Lease, packed: Packed) -> None:
        """Write the objects, then the entries that name them; try again until `_keep` gives the lease up."""
        while True:
            try:
                if packed.objects:
                    await asyncio.to_thread(write_objects, self._store, packed)
                    fault_point("rollout.after_objects")
                if not await self._queue.complete(lease, packed.entries):
                    log.info("late result dropped: the task is no longer ours", job=lease.job)
                if packed.objects and not await self._queue.is_open(lease.job):
                    # The job has ended, and its owner may have looked for objects before ours were written.
                    await asyncio.to_thread(discard_objects, self._store, packed)
                return
            except Unavailable as error:
                log.warning("queue or object store is away, result kept", job=lease.job, error=error.message)
                await asyncio.sleep(QUEUE_RETRY_SECONDS)

    async def _keep(self, lease: Lease, task: RolloutTask) -> None:
        """Renew the lease until it is lost or the task's total deadline has passed."""
        give_up = time.monotonic() + task.deadline_seconds + self._idle
        while time.monotonic() < give_up:
            await asyncio.sleep(self._idle / 3)
            try:
                if not await self._queue.renew(lease):
                    return
            except Unavailable:
                continue

    async def _prompt_table(self, ref: ObjectRef) -> PromptTable:
        table = self._tables.get(ref.sha256)
        if table is None:
            data = await asyncio.to_thread(read_object, self._store, ref.key, ref.sha256)
            table = await asyncio.to_thread(read_prompts, data)
            self._tables[ref.sha256] = table
            while len(self._tables) > TABLES_KEPT:
                self._tables.popitem(last=False)
        self._tables.move_to_end(ref.sha256)
        return table


def _failure(task: RolloutTask, error: QuatrainError, worker: str) -> Failed:
    place = Place(task.job, task.purpose, task.step, task.chunk, task.policy)
    return Failed(place, error.code_reason, error.message[:MAX_MESSAGE], worker)
