"""The interface of a queue, as far as Quatrain needs one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Lease:
    """A task that a worker holds.

    `nonce` distinguishes the task from one with the same entry id after a wipe; the queue fills it in.
    """

    pool: str
    entry_id: str
    worker: str
    job: str
    payload: bytes
    nonce: str = ""


@dataclass(frozen=True)
class Backlog:
    """Tasks of a pool: those that wait for a worker (Redis' `lag` of the group), and those that one holds."""

    waiting: int
    leased: int


class RolloutQueue(Protocol):
    """Tasks of pools, results of jobs, and a hint at who owns a job. At-least-once; one set of results per lease.

        queue = open_queue(config.queue)
        await queue.open_job("j-1")
        await queue.add_task("default", "j-1", payload)
        for lease in await queue.lease("default", "worker-1", count=1, block=1.0):
            await queue.complete(lease, [work(lease.payload)])
        results = await queue.read_results("j-1", "0", count=10, block=1.0)

    Every method raises Unavailable when the queue cannot be reached within its time-out, and InvalidInput for a name
    that is not plain. Blocking reads (`lease`, `read_results`) must not be cancelled: keep `block` short instead. One
    `lease` and one `read_results` may run at a time per worker and job; they do not block other calls.
    """

    async def check(self) -> None:
        """Raise InvalidInput unless the queue is fit: one server (no cluster), version 7 or newer, never evicting."""
        ...

    async def open_job(self, job: str) -> None:
        """Accept results of this job from now on. Idempotent."""
        ...

    async def close_job(self, job: str) -> None:
        """Refuse further results and delete everything of this job but its tasks, which vanish when completed."""
        ...

    async def is_open(self, job: str) -> bool:
        """Return whether results of this job are wanted: it was opened, and neither closed nor wiped since."""
        ...

    async def add_task(self, pool: str, job: str, payload: bytes) -> str:
        """Append a task to the pool's stream and return its entry id."""
        ...

    async def gone(self, pool: str, entry_ids: Sequence[str]) -> list[str]:
        """Return those of these tasks that the queue does not hold any more: completed, or lost by it."""
        ...

    async def lease(self, pool: str, worker: str, *, count: int, block: float) -> list[Lease]:
        """Take up to `count` tasks that no worker holds; wait up to `block` seconds (Redis: at most 2) for one."""
        ...

    async def reclaim(self, pool: str, worker: str, *, idle: float, count: int) -> list[Lease]:
        """Take over up to `count` tasks whose holder has not renewed them for `idle` seconds."""
        ...

    async def renew(self, lease: Lease) -> bool:
        """Start the lease's idle time again. False: the worker is not the holder any more and must drop the work."""
        ...

    async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
        """Store the results and remove the task, atomically. False: not the holder any more, nothing was changed.

        When the job is closed nothing is stored, the task is removed and the answer is True.
        """
        ...

    async def read_results(self, job: str, after: str, *, count: int, block: float) -> list[tuple[str, bytes]]:
        """Return results with their entry ids in the order they came, after an id (`0`: from the start).

        Waits up to `block` seconds (Redis: at most 2) for the first. After a wipe read from `0` again.
        """
        ...

    async def delete_results(self, job: str, entry_ids: Sequence[str]) -> None:
        """Forget results that are sealed."""
        ...

    async def hold(self, job: str, owner: str, ttl: float) -> bool:
        """Record for `ttl` seconds that `owner` owns the job, or renew that. False: another owner holds it."""
        ...

    async def holder(self, job: str) -> str | None:
        """Return who owns the job, None when no hold is valid. It is a hint: only the epoch event decides."""
        ...

    async def holders(self, jobs: Sequence[str]) -> dict[str, str]:
        """Return the owners of those of the jobs that have one, in one request."""
        ...

    async def release(self, job: str, owner: str) -> None:
        """Stop holding, if `owner` still does."""
        ...

    async def sentinel(self) -> str:
        """Return a random word that lives as long as the queue's contents: a new one means that they were wiped."""
        ...

    async def leave(self, pool: str, worker: str) -> bool:
        """Forget the name of a worker that stops. False: it holds tasks, or is not known."""
        ...

    async def forget_workers(self, pool: str, *, idle: float) -> list[str]:
        """Forget the workers that hold nothing and were silent for `idle` seconds, and return their names, sorted.

        This is harmless for one that is still alive: its next task makes it known again.
        """
        ...

    async def backlog(self, pool: str) -> Backlog:
        """Return how many tasks of the pool there are."""
        ...

    async def close(self) -> None:
        """Close all connections."""
        ...
