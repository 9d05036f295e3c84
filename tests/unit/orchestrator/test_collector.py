import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from tests.unit.orchestrator.scenery import expected, make_plan, result_of, results_of

from quatrain.errors import RunFailed
from quatrain.orchestrator.collector import Collector
from quatrain.queue import Lease
from quatrain.queue.memory import MemoryQueue
from quatrain.v1 import rollout_pb2

PLAN = make_plan()


@contextlib.asynccontextmanager
async def collecting(queue: MemoryQueue) -> AsyncIterator[Collector]:
    collector = Collector(PLAN, 1, queue, "default")
    running = asyncio.create_task(collector.run())
    try:
        yield collector
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def leased(queue: MemoryQueue, count: int) -> list[tuple[Lease, rollout_pb2.RolloutTask]]:
    leases: list[Lease] = []
    while len(leases) < count:
        leases += await queue.lease("default", "w", count=count, block=1.0)
    return [(lease, rollout_pb2.RolloutTask.FromString(lease.payload)) for lease in leases]


def test_results_come_back_in_the_order_of_the_rows() -> None:
    async def scenario() -> list[str]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            for lease, task in reversed(await leased(queue, 2)):
                assert await queue.complete(lease, results_of(task, batch))
            return [result.row.rollout_id for result in await asyncio.wait_for(collector.collect(batch), 5)]

    assert asyncio.run(scenario()) == [row.rollout_id for row in expected(PLAN).rows]


def test_the_first_result_of_an_id_wins_and_another_version_does_not_count() -> None:
    async def scenario() -> list[float]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        row = batch.rows[0]
        stale = result_of(batch, row, 0, policy=batch.policy.to_proto(7), generate_seconds=9.0)
        late = result_of(batch, row, 0, generate_seconds=8.0)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (first, task), (second, other) = await leased(queue, 2)
            assert await queue.complete(
                first, [stale.SerializeToString(), *results_of(task, batch), late.SerializeToString()]
            )
            assert await queue.complete(second, results_of(other, batch))
            return [result.generate_seconds for result in await asyncio.wait_for(collector.collect(batch), 5)]

    assert asyncio.run(scenario()) == [0.5] * 6


def test_a_new_owner_takes_results_that_are_there_and_enqueues_only_the_rest() -> None:
    async def scenario() -> list[int]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (lease, task), _ = await leased(queue, 2)
            assert await queue.complete(lease, results_of(task, batch))
        async with collecting(queue) as successor:
            await successor.expect(batch)
            again = await leased(queue, 1)
            assert await queue.complete(again[0][0], results_of(again[0][1], batch))
            await asyncio.wait_for(successor.collect(batch), 5)
            return [task.chunk for _, task in again]

    assert asyncio.run(scenario()) == [1]


def test_a_failed_task_ends_the_wait_with_its_reason() -> None:
    async def scenario() -> None:
        queue = MemoryQueue()
        batch = expected(PLAN)
        failure = result_of(
            batch, batch.rows[0], 0, error_reason="REWARD_FUNCTION_FAILED", error_message="count raised"
        )
        async with collecting(queue) as collector:
            await collector.expect(batch)
            lease, _ = (await leased(queue, 2))[0]
            assert await queue.complete(lease, [failure.SerializeToString()])
            await asyncio.wait_for(collector.collect(batch), 5)

    with pytest.raises(RunFailed, match="count raised") as caught:
        asyncio.run(scenario())
    assert caught.value.code_reason == "REWARD_FUNCTION_FAILED"


def test_forgetting_leaves_nothing_in_the_queue() -> None:
    async def scenario() -> list[tuple[str, bytes]]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            for lease, task in await leased(queue, 2):
                assert await queue.complete(lease, results_of(task, batch))
            await asyncio.wait_for(collector.collect(batch), 5)
            await collector.forget("rollout", 1)
        return await queue.read_results("job-1", "0", count=10, block=0.0)

    assert asyncio.run(scenario()) == []


def test_results_of_steps_that_this_owner_does_not_know_are_left_to_the_next_one() -> None:
    async def scenario() -> int:
        queue = MemoryQueue()
        batch = expected(PLAN, step=2)
        async with collecting(queue) as zombie, collecting(queue) as heir:
            await zombie.expect(expected(PLAN, step=1))
            await heir.expect(batch)
            for lease, task in await leased(queue, 4):
                if task.step == 2:
                    assert await queue.complete(lease, results_of(task, batch))
            await asyncio.sleep(0.1)
        async with collecting(queue) as successor:
            return len(await asyncio.wait_for(successor.collect(batch), 5))

    assert asyncio.run(scenario()) == 6


def test_late_results_of_a_forgotten_batch_and_entries_that_are_none_are_deleted() -> None:
    async def scenario() -> list[tuple[str, bytes]]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (lease, task), (other, _) = await leased(queue, 2)
            await collector.forget("rollout", 1)
            assert await queue.complete(lease, results_of(task, batch))
            assert await queue.complete(other, [b"\xff\xff no result"])
            await asyncio.sleep(0.2)
        return await queue.read_results("job-1", "0", count=10, block=0.0)

    assert asyncio.run(scenario()) == []


def test_a_late_failure_of_a_task_that_another_worker_did_changes_nothing() -> None:
    async def scenario() -> int:
        queue = MemoryQueue()
        batch = expected(PLAN)
        failure = result_of(batch, batch.rows[0], 0, error_reason="NOT_FOUND", error_message="late")
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (lease, task), (other, second) = await leased(queue, 2)
            assert await queue.complete(lease, [*results_of(task, batch), failure.SerializeToString()])
            assert await queue.complete(other, results_of(second, batch))
            return len(await asyncio.wait_for(collector.collect(batch), 5))

    assert asyncio.run(scenario()) == 6
