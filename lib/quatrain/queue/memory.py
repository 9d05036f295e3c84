"""The queue inside one process and one event loop, for tests and for trying out. It is lost with the process."""

import asyncio
import math
import secrets
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from typing_extensions import override

from quatrain.queue.names import check_name
from quatrain.queue.protocol import Backlog, Lease, RolloutQueue


@dataclass
class _Held:
    worker: str
    since: float


@dataclass
class _Pool:
    tasks: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    waiting: deque[str] = field(default_factory=deque)
    held: dict[str, _Held] = field(default_factory=dict)
    workers: dict[str, float] = field(default_factory=dict)
    """When each worker was last given a task or renewed one."""


class MemoryQueue(RolloutQueue):
    """A `RolloutQueue` in dicts. Share one instance; two instances share nothing. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._count = 0
        self.wipe()

    def wipe(self) -> None:
        """Forget everything, as FLUSHALL does."""
        self._pools: dict[str, _Pool] = {}
        self._jobs: dict[str, dict[str, bytes]] = {}
        self._owners: dict[str, tuple[str, float]] = {}
        self._sentinel = secrets.token_hex(8)

    @override
    async def check(self) -> None:
        """Do nothing: this queue needs no check."""

    @override
    async def open_job(self, job: str) -> None:
        self._jobs.setdefault(check_name("job", job), {})

    @override
    async def close_job(self, job: str) -> None:
        self._jobs.pop(check_name("job", job), None)
        self._owners.pop(job, None)

    @override
    async def is_open(self, job: str) -> bool:
        return check_name("job", job) in self._jobs

    @override
    async def add_task(self, pool: str, job: str, payload: bytes) -> str:
        check_name("job", job)
        entry_id = self._next_id()
        self._pool(pool).tasks[entry_id] = (job, bytes(payload))
        self._pool(pool).waiting.append(entry_id)
        await self._announce()
        return entry_id

    @override
    async def gone(self, pool: str, entry_ids: Sequence[str]) -> list[str]:
        return [entry_id for entry_id in entry_ids if entry_id not in self._pool(pool).tasks]

    @override
    async def lease(self, pool: str, worker: str, *, count: int, block: float) -> list[Lease]:
        check_name("worker", worker)
        check_name("pool", pool)
        await self._wait(lambda: bool(self._pool(pool).waiting), block)
        state = self._pool(pool)
        taken = [state.waiting.popleft() for _ in range(min(count, len(state.waiting)))]
        return [self._hold_task(pool, entry_id, worker) for entry_id in taken]

    @override
    async def reclaim(self, pool: str, worker: str, *, idle: float, count: int) -> list[Lease]:
        check_name("worker", worker)
        now = time.monotonic()
        stale = [entry_id for entry_id, held in self._pool(pool).held.items() if now - held.since >= idle]
        return [self._hold_task(pool, entry_id, worker) for entry_id in stale[:count]]

    @override
    async def renew(self, lease: Lease) -> bool:
        held = self._pool(lease.pool).held.get(lease.entry_id)
        if held is None or held.worker != lease.worker:
            return False
        held.since = self._pool(lease.pool).workers[lease.worker] = time.monotonic()
        return True

    @override
    async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
        state = self._pool(lease.pool)
        held = state.held.get(lease.entry_id)
        if held is None or held.worker != lease.worker:
            return False
        del state.held[lease.entry_id], state.tasks[lease.entry_id]
        if lease.job in self._jobs:
            self._jobs[lease.job].update((self._next_id(), bytes(result)) for result in results)
            await self._announce()
        return True

    @override
    async def read_results(self, job: str, after: str, *, count: int, block: float) -> list[tuple[str, bytes]]:
        check_name("job", job)
        await self._wait(lambda: bool(self._after(job, after)), block)
        return self._after(job, after)[:count]

    @override
    async def delete_results(self, job: str, entry_ids: Sequence[str]) -> None:
        for entry_id in entry_ids:
            self._jobs.get(job, {}).pop(entry_id, None)

    @override
    async def hold(self, job: str, owner: str, ttl: float) -> bool:
        check_name("owner", owner)
        if await self.holder(job) not in (None, owner):
            return False
        self._owners[job] = (owner, time.monotonic() + ttl)
        return True

    @override
    async def holder(self, job: str) -> str | None:
        owner, until = self._owners.get(check_name("job", job), ("", 0.0))
        return owner if time.monotonic() < until else None

    @override
    async def holders(self, jobs: Sequence[str]) -> dict[str, str]:
        return {job: owner for job in jobs if (owner := await self.holder(job)) is not None}

    @override
    async def release(self, job: str, owner: str) -> None:
        if await self.holder(job) == owner:
            del self._owners[job]

    @override
    async def sentinel(self) -> str:
        return self._sentinel

    @override
    async def leave(self, pool: str, worker: str) -> bool:
        check_name("worker", worker)
        return worker in self._forget(pool, 0.0, [worker])

    @override
    async def forget_workers(self, pool: str, *, idle: float) -> list[str]:
        return sorted(self._forget(pool, idle, list(self._pool(pool).workers)))

    @override
    async def backlog(self, pool: str) -> Backlog:
        return Backlog(len(self._pool(pool).waiting), len(self._pool(pool).held))

    @override
    async def close(self) -> None:
        """Do nothing: there are no connections."""

    def _pool(self, pool: str) -> _Pool:
        return self._pools.setdefault(check_name("pool", pool), _Pool())

    def _forget(self, pool: str, idle: float, names: Sequence[str]) -> list[str]:
        state, latest = self._pool(pool), time.monotonic() - idle
        holding = {held.worker for held in state.held.values()}
        gone = [name for name in names if name not in holding and state.workers.get(name, math.inf) <= latest]
        for name in gone:
            del state.workers[name]
        return gone

    def _next_id(self) -> str:
        self._count += 1
        return f"{self._count}-0"

    def _hold_task(self, pool: str, entry_id: str, worker: str) -> Lease:
        state = self._pool(pool)
        now = state.workers[worker] = time.monotonic()
        state.held[entry_id] = _Held(worker, now)
        job, payload = state.tasks[entry_id]
        return Lease(pool, entry_id, worker, job, payload)

    def _after(self, job: str, after: str) -> list[tuple[str, bytes]]:
        bound = _order(after)
        return [(entry_id, data) for entry_id, data in self._jobs.get(job, {}).items() if _order(entry_id) > bound]

    async def _announce(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def _wait(self, ready: Callable[[], bool], block: float) -> None:
        if block <= 0 or ready():
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(block), self._changed:
                await self._changed.wait_for(ready)


def _order(entry_id: str) -> tuple[int, int]:
    first, _, second = entry_id.partition("-")
    return int(first), int(second or 0)
