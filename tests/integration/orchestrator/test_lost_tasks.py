"""A real queue server that forgets some tasks and nothing else, as one does that lost power."""

import asyncio
from pathlib import Path

import pytest
from redis import Redis
from tests.integration.orchestrator.faults import soon
from tests.integration.orchestrator.world import deployment, run
from tests.servers.redis import RedisServer
from tests.unit.orchestrator.scenery import expected, make_plan, results_of

from quatrain.orchestrator.rollout.collector import Collector
from quatrain.orchestrator.rollout.samples import RolloutTask
from quatrain.orchestrator.rollout.wire import decode_task
from quatrain.queue import Lease
from quatrain.queue.redis import RedisQueue
from quatrain.storage.memory import MemoryStore

PLAN = make_plan()
TASKS = "quatrain:tasks:default"


async def ours() -> None:
    """The job has no other owner."""


async def leased(queue: RedisQueue, count: int) -> list[tuple[Lease, RolloutTask]]:
    leases: list[Lease] = []
    while len(leases) < count:
        leases += await queue.lease("default", "w", count=count, block=1.0)
    return [(lease, decode_task(lease.payload)) for lease in leases]


def test_tasks_that_the_queue_lost_are_enqueued_again(
    valkey_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.collector.LOSS_POLL_SECONDS", 0.2)

    async def scenario() -> None:
        queue, batch = RedisQueue(valkey_server.url), expected(PLAN)
        collector = Collector(PLAN, 1, queue, MemoryStore())
        await collector.open()
        running = asyncio.create_task(collector.run(ours))
        try:
            await collector.expect(batch)
            kept, lost = await leased(queue, 2)
            with Redis.from_url(valkey_server.url) as server:
                server.xdel(TASKS, lost[0].entry_id)
            (again,) = await leased(queue, 1)
            assert (again[1].chunk, again[1].samples) == (lost[1].chunk, lost[1].samples)
            for lease, task in (again, kept):
                assert await queue.complete(lease, results_of(task, batch))
            assert len(await collector.collect(batch)) == len(batch.samples)
            assert (await queue.backlog("default")).waiting == 0, "what was completed is not made again"
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await collector.close()
            await queue.close()

    with Redis.from_url(valkey_server.url) as server:
        server.flushall()
    run(scenario)


def test_a_job_goes_on_when_its_queue_loses_tasks_and_keeps_its_sentinel(
    tmp_path: Path, valkey_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.collector.LOSS_POLL_SECONDS", 0.5)

    async def scenario() -> None:
        queue = RedisQueue(valkey_server.url)
        try:
            async with deployment(tmp_path, workers=0, schedulers=0) as world:
                world.queue = queue  # type: ignore[assignment]
                await world.submit(world.spec(prompts_per_step=8))
                world.start_scheduler()
                with Redis.from_url(valkey_server.url) as server:
                    await soon(lambda: server.xlen(TASKS) >= 4, "the tasks of a step were not enqueued")
                    server.xtrim(TASKS, maxlen=1, approximate=False)
                world.start_worker()
                await soon(lambda: world.view().finished, "the job did not go on")
                assert world.view().state == "SUCCEEDED"
        finally:
            await queue.close()

    with Redis.from_url(valkey_server.url) as server:
        server.flushall()
    run(scenario)
