import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from tests.unit.orchestrator.scenery import expected, made_of, make_plan, result_of, results_of

from quatrain.digests import sha256_hex
from quatrain.errors import Fenced, RunFailed
from quatrain.orchestrator.rollout.collector import Collector
from quatrain.orchestrator.rollout.large_results import pack, write_objects
from quatrain.orchestrator.rollout.samples import ExpectedSample, RolloutTask
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.orchestrator.rollout.wire import decode_task
from quatrain.queue import Lease
from quatrain.queue.memory import MemoryQueue
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import common_pb2

PLAN = make_plan()


async def ours() -> None:
    """The job has no other owner."""


@contextlib.asynccontextmanager
async def collecting(queue: MemoryQueue, store: MemoryStore | None = None) -> AsyncIterator[Collector]:
    collector = Collector(PLAN, 1, queue, store or MemoryStore())
    running = asyncio.create_task(collector.run(ours))
    try:
        yield collector
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def leased(queue: MemoryQueue, count: int) -> list[tuple[Lease, RolloutTask]]:
    leases: list[Lease] = []
    while len(leases) < count:
        leases += await queue.lease("default", "w", count=count, block=1.0)
    return [(lease, decode_task(lease.payload)) for lease in leases]


def test_results_come_back_in_the_order_of_the_rows() -> None:
    async def scenario() -> list[str]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            for lease, task in reversed(await leased(queue, 2)):
                assert await queue.complete(lease, results_of(task, batch))
            return [made.rollout.sample.rollout_id for made in await asyncio.wait_for(collector.collect(batch), 5)]

    assert asyncio.run(scenario()) == [sample.rollout_id for sample in expected(PLAN).samples]


def test_a_batch_is_enqueued_once_though_the_reading_loop_looks_at_it_while_it_is_being_enqueued() -> None:
    class BusyQueue(MemoryQueue):
        """Takes its time to add a task, and always wakes its readers."""

        async def add_task(self, pool: str, job: str, payload: bytes) -> str:
            await asyncio.sleep(0.01)
            return await super().add_task(pool, job, payload)

        async def read_results(self, job: str, after: str, *, count: int, block: float) -> list[tuple[str, bytes]]:
            await asyncio.sleep(0)
            return await super().read_results(job, after, count=count, block=0.0)

    async def scenario() -> list[int]:
        queue = BusyQueue()
        async with collecting(queue) as collector:
            await collector.expect(expected(PLAN))
            await asyncio.sleep(0.1)
            return sorted(task.chunk for _, task in await leased(queue, (await queue.backlog("default")).waiting))

    assert asyncio.run(scenario()) == [0, 1]


def test_the_first_result_of_an_id_wins_and_another_version_does_not_count() -> None:
    async def scenario() -> list[float]:
        queue = MemoryQueue()
        batch = expected(PLAN)
        row = batch.samples[0]
        stale = result_of(batch, row, 0, policy=batch.policy.at_version(7).to_proto(), generate_seconds=9.0)
        late = result_of(batch, row, 0, generate_seconds=8.0)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (first, task), (second, other) = await leased(queue, 2)
            assert await queue.complete(
                first, [stale.SerializeToString(), *results_of(task, batch), late.SerializeToString()]
            )
            assert await queue.complete(second, results_of(other, batch))
            return [made.work.generate_seconds for made in await asyncio.wait_for(collector.collect(batch), 5)]

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
            batch, batch.samples[0], 0, error_reason="REWARD_FUNCTION_FAILED", error_message="count raised"
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
        async with collecting(queue) as stale, collecting(queue) as heir:
            await stale.expect(expected(PLAN, step=1))
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
        failure = result_of(batch, batch.samples[0], 0, error_reason="NOT_FOUND", error_message="late")
        async with collecting(queue) as collector:
            await collector.expect(batch)
            (lease, task), (other, second) = await leased(queue, 2)
            assert await queue.complete(lease, [*results_of(task, batch), failure.SerializeToString()])
            assert await queue.complete(other, results_of(second, batch))
            return len(await asyncio.wait_for(collector.collect(batch), 5))

    assert asyncio.run(scenario()) == 6


def stored(store: MemoryStore, task: RolloutTask, batch: ExpectedBatch, **changes: Any) -> list[bytes]:
    """Results of a task as entries that name objects, which are in the store."""
    packed = pack([made_of(batch, sample, task.chunk, **changes) for sample in task.samples], inline_bytes=0)
    write_objects(store, packed)
    return list(packed.entries)


async def until(condition: Callable[[], bool], what: str) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.02)
    raise AssertionError(what)


def objects(store: MemoryStore) -> list[str]:
    return [stat.key for stat in store.list("")]


def test_objects_of_a_forgotten_batch_are_deleted_also_those_that_come_late_or_that_nothing_names() -> None:
    async def scenario() -> None:
        queue, store = MemoryQueue(), MemoryStore()
        batch = expected(PLAN)
        async with collecting(queue, store) as collector:
            await collector.expect(batch)
            (lease, task), (other, second) = await leased(queue, 2)
            again = await queue.add_task("default", "job-1", lease.payload)
            assert await queue.complete(lease, stored(store, task, batch) + stored(store, task, batch))
            assert await queue.complete(other, stored(store, second, batch))
            stored(store, task, batch)  # A worker that lost its lease.
            store.put("jobs/job-1/ppo/rollouts/rollout-11-0-nonce-0", b"of another step")
            assert len(await asyncio.wait_for(collector.collect(batch), 5)) == 6
            await collector.forget("rollout", 1)
            await until(lambda: len(objects(store)) == 1, "objects of the step stayed")

            (late, _) = (await leased(queue, 1))[0]
            assert late.entry_id == again
            assert await queue.complete(late, stored(store, task, batch))
            await until(lambda: len(objects(store)) == 1, "objects of the late results stayed")
            assert await queue.read_results("job-1", "0", count=10, block=0.0) == []
            await collector.close()
            assert objects(store) == []

    asyncio.run(scenario())


def test_an_object_of_another_version_does_not_stand_for_the_one_that_is_missing() -> None:
    async def scenario() -> int:
        queue, store = MemoryQueue(), MemoryStore()
        batch = expected(PLAN)
        async with collecting(queue, store) as collector:
            await collector.expect(batch)
            for lease, task in await leased(queue, 2):
                stale = stored(store, task, batch, policy=batch.policy.at_version(7).to_proto())
                assert await queue.complete(lease, stale + stored(store, task, batch))
            results = await asyncio.wait_for(collector.collect(batch), 5)
            return len([made for made in results if made.place.policy.policy_version == 0])

    assert asyncio.run(scenario()) == 6


def test_an_entry_cannot_make_the_owner_read_or_delete_anything_else() -> None:
    async def scenario() -> list[str]:
        queue, store = MemoryQueue(), MemoryStore()
        batch = expected(PLAN)
        others = ["data/p", "jobs/job-2/ppo/rollouts/rollout-1-0-n-0", "jobs/job-1/spec.json"]
        for key in others:
            store.put(key, b"precious")
        keys = [*others, "jobs/job-1/ppo/rollouts/../../spec.json"]

        def forged(row: ExpectedSample, key: str) -> bytes:
            place = common_pb2.ObjectRef(key=key, sha256=sha256_hex(b"precious"))
            return result_of(batch, row, 0, object=place).SerializeToString()

        async with collecting(queue, store) as collector:
            await collector.expect(batch)
            (lease, task), (other, second) = await leased(queue, 2)
            assert await queue.complete(lease, [forged(row, key) for row, key in zip(task.samples, keys, strict=True)])
            (again, task) = (await leased(queue, 1))[0]
            assert await queue.complete(again, results_of(task, batch))
            assert await queue.complete(other, results_of(second, batch))
            await asyncio.wait_for(collector.collect(batch), 5)
            await collector.forget("rollout", 1)
            await queue.add_task("default", "job-1", lease.payload)
            (late, task) = (await leased(queue, 1))[0]
            assert await queue.complete(late, [forged(row, key) for row, key in zip(task.samples, keys, strict=True)])
            await asyncio.sleep(0.2)
        return objects(store)

    assert asyncio.run(scenario()) == ["data/p", "jobs/job-1/spec.json", "jobs/job-2/ppo/rollouts/rollout-1-0-n-0"]


def test_a_closed_job_is_not_opened_again_and_one_that_the_queue_forgot_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.collector.SENTINEL_SECONDS", 0.02)

    async def scenario() -> None:
        queue = MemoryQueue()
        batch = expected(PLAN)
        async with collecting(queue) as collector:
            await collector.expect(batch)
            await leased(queue, 2)
            await queue.close_job("job-1")  # A restarted queue: the job's key is lost, the sentinel is not.
            again = await leased(queue, 2)
            assert [task.chunk for _, task in again] == [0, 1]
            assert await queue.is_open("job-1"), "opened before the tasks are added"
            await collector.close()
            await asyncio.sleep(0.2)
            assert not await queue.is_open("job-1")
            await collector.open()
            await collector.expect(batch)
            assert len(await leased(queue, 2)) == 2, "a paused job begins anew"

    asyncio.run(scenario())


def test_an_owner_that_lost_the_job_does_not_open_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.collector.SENTINEL_SECONDS", 0.02)

    async def somebody_elses() -> None:
        raise Fenced("job job-1 has a newer owner")

    async def scenario() -> None:
        queue = MemoryQueue()
        collector = Collector(PLAN, 1, queue, MemoryStore())
        running = asyncio.create_task(collector.run(somebody_elses))
        await collector.expect(expected(PLAN))
        queue.wipe()
        with pytest.raises(Fenced):
            await asyncio.wait_for(running, 30)
        assert not await queue.is_open("job-1")

    asyncio.run(scenario())
