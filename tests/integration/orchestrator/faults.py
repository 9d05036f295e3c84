"""A store and a queue that can go away, whole or in part, and come back; and a frozen owner."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from quatrain.errors import Unavailable
from quatrain.queue import Backlog, Lease
from quatrain.queue.memory import MemoryQueue
from quatrain.storage.memory import MemoryStore


class FlakyStore(MemoryStore):
    """Refuses calls for which `away` is true; `away` gets the method and the key."""

    def __init__(self) -> None:
        super().__init__()
        self.away: Callable[[str, str], bool] = lambda method, key: False
        self.refused: list[tuple[str, str]] = []
        self.calm = MemoryStore()
        """The same objects, always there, for the test's own eyes."""
        vars(self.calm).update(_objects=self._objects, _order=self._order, _lock=self._lock)

    def go(self, times: int, method: str = "", part: str = "") -> None:
        """Goes away for the next `times` calls of a method whose key holds `part`."""
        left = [times]

        def away(called: str, key: str) -> bool:
            if left[0] <= 0 or (method and called != method) or part not in key:
                return False
            left[0] -= 1
            return True

        self.away = away

    def _check(self, method: str, key: str) -> None:
        if self.away(method, key):
            self.refused.append((method, key))
            raise Unavailable(f"the store is away ({method} {key})")

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._check("put_if_absent", key)
        created = super().put_if_absent(key, data)
        self._check("reply", key)  # The object is there, but the writer does not know.
        return created

    def put(self, key: str, data: bytes) -> None:
        self._check("put", key)
        super().put(key, data)

    def put_file(self, key: str, path: Path) -> None:
        self._check("put_file", key)
        super().put_file(key, path)

    def get(self, key: str) -> bytes:
        self._check("get", key)
        return super().get(key)

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> Any:
        self._check("list", prefix)
        return super().list(prefix, start_after=start_after, limit=limit)

    def delete(self, key: str) -> None:
        self._check("delete", key)
        super().delete(key)


class FrozenStore:
    """One owner's way to a store: what it asks while frozen waits, as everything does in a stopped process."""

    def __init__(self, inner: MemoryStore) -> None:
        self._inner = inner
        self.thawed = threading.Event()
        self.thawed.set()
        self.writes_after: list[str] = []
        self._watching = False

    def freeze(self) -> None:
        self.thawed.clear()

    def thaw(self) -> None:
        self._watching = True
        self.thawed.set()

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._inner, name)
        if not callable(method):
            return method

        def call(*args: Any, **kwargs: Any) -> Any:
            self.thawed.wait(20.0)
            done = method(*args, **kwargs)
            if self._watching and name.startswith("put") and done is not False:
                self.writes_after.append(str(args[0]))
            return done

        return call


class FlakyQueue(MemoryQueue):
    """Refuses the next calls of chosen methods."""

    def __init__(self) -> None:
        super().__init__()
        self.refusals: dict[str, int] = {}
        self.renewals: list[str] = []
        self.completions: list[tuple[str, bool]] = []
        self.added: list[bytes] = []

    def _check(self, method: str) -> None:
        if self.refusals.get(method, 0) > 0:
            self.refusals[method] -= 1
            raise Unavailable(f"the queue is away ({method})")

    async def add_task(self, pool: str, job: str, payload: bytes) -> str:
        self._check("add_task")
        self.added.append(payload)
        return await super().add_task(pool, job, payload)

    async def read_results(self, job: str, after: str, *, count: int, block: float) -> list[tuple[str, bytes]]:
        self._check("read_results")
        return await super().read_results(job, after, count=count, block=block)

    async def lease(self, pool: str, worker: str, *, count: int, block: float) -> list[Lease]:
        self._check("lease")
        return await super().lease(pool, worker, count=count, block=block)

    async def renew(self, lease: Lease) -> bool:
        self._check("renew")
        self.renewals.append(lease.entry_id)
        return await super().renew(lease)

    async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
        self._check("complete")
        done = await super().complete(lease, results)
        self.completions.append((lease.worker, done))
        return done

    async def open_job(self, job: str) -> None:
        self._check("open_job")
        await super().open_job(job)

    async def close_job(self, job: str) -> None:
        self._check("close_job")
        await super().close_job(job)

    async def is_open(self, job: str) -> bool:
        self._check("is_open")
        return await super().is_open(job)

    async def holder(self, job: str) -> str | None:
        self._check("holder")
        return await super().holder(job)

    async def holders(self, jobs: Sequence[str]) -> dict[str, str]:
        self._check("holders")
        return await super().holders(jobs)

    async def backlog(self, pool: str) -> Backlog:
        self._check("backlog")
        return await super().backlog(pool)

    async def sentinel(self) -> str:
        self._check("sentinel")
        return await super().sentinel()


async def soon(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Waits for a condition. Fails with `what` after `seconds`."""
    for _ in range(int(seconds / 0.02)):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"{what} within {seconds:g} s")
