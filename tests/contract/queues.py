"""The queues that the conformance suite runs on, and what its tests say often."""

import asyncio
from collections.abc import Awaitable, Callable

from redis import Redis

from quatrain.queue import Lease, RolloutQueue
from quatrain.queue.memory import MemoryQueue
from quatrain.queue.redis import RedisQueue

KINDS = ["memory", "valkey", "redis"]

Scenario = Callable[[RolloutQueue], Awaitable[None]]


class Bench:
    """Runs scenarios on a queue that starts out empty, and wipes it behind the queue's back."""

    def __init__(self, url: str | None) -> None:
        self._url = url
        self._memory = MemoryQueue()

    def wipe(self) -> None:
        if self._url is None:
            self._memory.wipe()
        else:
            with Redis.from_url(self._url) as server:
                server.flushall()

    def key_names(self) -> set[str]:
        if self._url is None:
            return {f"quatrain:job:{job}" for job in self._memory._jobs}
        with Redis.from_url(self._url) as server:
            return {key.decode() for key in server.keys("*")}

    def run(self, scenario: Scenario) -> None:
        async def go() -> None:
            queue: RolloutQueue = self._memory if self._url is None else RedisQueue(self._url)
            try:
                await scenario(queue)
            finally:
                await queue.close()

        asyncio.run(go())


async def lease_one(queue: RolloutQueue, worker: str) -> Lease:
    (lease,) = await queue.lease("pool", worker, count=1, block=1.0)
    return lease


async def results_of(queue: RolloutQueue, job: str = "job") -> list[bytes]:
    return [data for _, data in await queue.read_results(job, "0", count=1000, block=0)]
