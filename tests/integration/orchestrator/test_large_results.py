"""Results that are too large for the queue: they go through the store, whatever happens to store, queue and objects."""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
from redis import Redis
from tests.integration.orchestrator.faults import FlakyQueue, FlakyStore, soon
from tests.integration.orchestrator.test_job_ends import cancel
from tests.integration.orchestrator.test_outages import check_ended_well
from tests.integration.orchestrator.test_rollout_worker import tasks
from tests.integration.orchestrator.world import INLINE_BYTES, World, deployment, run, write_model
from tests.servers.redis import RedisServer
from tests.servers.s3 import S3Server

from quatrain.errors import Overloaded
from quatrain.joblog import Event
from quatrain.orchestrator.peers.service_clients import GenerateCall, Generated
from quatrain.orchestrator.rollout.worker import RolloutWorker
from quatrain.queue import Lease
from quatrain.queue.redis import RedisQueue
from quatrain.storage.folders import upload_model_folder
from quatrain.storage.memory import MemoryStore

ROLLOUTS = "jobs/job-1/ppo/rollouts/"
EVERYTHING = 0
"""No result is small enough to go through the queue."""


class WatchedQueue(FlakyQueue):
    """Keeps the size of each entry."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []

    async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
        self.sizes += [len(result) for result in results]
        return await super().complete(lease, results)


class WatchedStore(FlakyStore):
    """Keeps the size of each result's object, and does `to_object` to it before it is first read."""

    def __init__(self, to_object: str = "", times: int = 0) -> None:
        super().__init__()
        self.sizes: dict[str, int] = {}
        self._to_object, self._times = to_object, times
        self.spoilt: list[str] = []

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key.startswith(ROLLOUTS):
            self.sizes[key] = len(data)
        return super().put_if_absent(key, data)

    def get(self, key: str) -> bytes:
        if key.startswith(ROLLOUTS) and key not in self.spoilt and len(self.spoilt) < self._times:
            self.spoilt.append(key)
            if self._to_object == "deleted":
                self.calm.delete(key)
            else:
                self.calm.put(key, b"\xff\xff no result")
        return super().get(key)


async def run_job(
    root: Path, store: MemoryStore, inline_bytes: int, queue: FlakyQueue | None = None, **ppo: Any
) -> tuple[list[Any], list[Any]]:
    """Runs a job to its end; the digests of its sealed batches and of its policies."""
    async with deployment(root, workers=0, schedulers=0, store=store) as world:
        world.queue = queue or world.queue
        world.start_scheduler()
        world.start_worker(inline_bytes=inline_bytes)
        await world.submit(world.spec(**ppo))
        await world.end_of()
        await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
        check_ended_well(world)
        assert world.view().attempt == 1
        assert world.calm.list(ROLLOUTS) == []
        sealed = [event.data["sha256"] for event in world.events(kind="batch_sealed")]
        return sealed, [_policy(event) for event in world.events(kind="step_completed")]


def _policy(event: Event) -> Any:
    return event.data["policy"]["digest"]


def test_a_job_ends_the_same_whichever_way_its_results_take(tmp_path: Path) -> None:
    async def scenario() -> None:
        small, store = WatchedStore(), WatchedStore()
        queue = WatchedQueue()
        inline = await run_job(tmp_path / "inline", small, 2**20)
        assert small.sizes == {}

        assert await run_job(tmp_path / "objects", store, EVERYTHING, queue) == inline

        assert len(store.sizes) == len(queue.sizes) == 12, "one object for each of the samples of three steps"

    run(scenario)


async def long_completions(world: World, inline_bytes: int) -> list[Any]:
    """Two steps of completions of 6000 tokens each; the digests of the sealed batches."""
    folder = write_model(world.root / "long-context", positions=8192)
    world.model_uri = f"sha256:{(await asyncio.to_thread(upload_model_folder, world.store, folder)).digest}"
    world.start_scheduler()
    worker = world.start_worker(inline_bytes=inline_bytes)
    await world.submit(world.spec(generation={"max_new_tokens": 6000, "ignore_eos": True}, steps=2))
    assert (await world.end_of(seconds=60.0)).state == "SUCCEEDED"
    await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
    assert world.calm.list(ROLLOUTS) == []
    worker.stop()
    return [event.data["sha256"] for event in world.events(kind="batch_sealed")]


def test_long_completions_leave_the_queue_small(tmp_path: Path) -> None:
    async def job(root: Path, store: WatchedStore, queue: WatchedQueue, inline_bytes: int) -> list[Any]:
        async with deployment(root, workers=0, schedulers=0, store=store) as world:
            world.queue = queue
            return await long_completions(world, inline_bytes)

    async def scenario() -> None:
        store, queue, wide = WatchedStore(), WatchedQueue(), WatchedQueue()
        sealed = await job(tmp_path / "as-it-is", store, queue, INLINE_BYTES)
        assert len(store.sizes) == len(queue.sizes) == 8
        assert min(store.sizes.values()) > 12 * 6000 > 64 * 1024
        assert max(queue.sizes) < 1000

        assert await job(tmp_path / "inline", WatchedStore(), wide, 2**20) == sealed
        assert min(wide.sizes) > 12 * 6000

    run(scenario)


def test_long_completions_on_real_servers(tmp_path: Path, minio_server: S3Server, valkey_server: RedisServer) -> None:
    largest = [0]

    class Watched(RedisQueue):
        async def complete(self, lease: Lease, results: Sequence[bytes]) -> bool:
            largest[0] = max([*largest, *map(len, results)])
            return await super().complete(lease, results)

    async def scenario() -> None:
        queue, store = Watched(valkey_server.url), minio_server.new_store()
        try:
            async with deployment(tmp_path, workers=0, schedulers=0, store=store) as world:
                cast(Any, world).queue = queue
                assert len(await long_completions(world, INLINE_BYTES)) == 2
                assert 0 < largest[0] < 1000
                with Redis.from_url(valkey_server.url) as server:
                    await soon(
                        lambda: not server.xinfo_consumers("quatrain:tasks:default", "workers"), "a worker stayed"
                    )
                    await soon(lambda: not [key for key in server.keys("*") if b"job-1" in key], "a key stayed")
        finally:
            await queue.close()

    with Redis.from_url(valkey_server.url) as server:
        server.flushall()
    run(scenario)


@pytest.mark.parametrize("to_object", ["deleted", "damaged"])
@pytest.mark.parametrize("times", [1, 5])
def test_a_lost_object_is_a_chunk_made_again(tmp_path: Path, to_object: str, times: int) -> None:
    async def scenario() -> None:
        inline = await run_job(tmp_path / "inline", MemoryStore(), 2**20)
        store, queue = WatchedStore(to_object, times), WatchedQueue()

        assert await run_job(tmp_path / "objects", store, EVERYTHING, queue) == inline

        assert len(store.spoilt) == times
        assert 6 < len(queue.completions) <= 6 + times, "the chunks that lost something were made again"

    run(scenario)


def test_objects_that_are_lost_for_ever_are_made_again_at_a_slow_pace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.collector.STALLED_SECONDS", 0.5)

    async def scenario() -> None:
        store, queue = WatchedStore("deleted", times=6), WatchedQueue()
        await run_job(tmp_path, store, EVERYTHING, queue, prompts_per_step=1, chunk_size=1)
        assert len(store.spoilt) == 6
        assert len(queue.added) >= 9

    run(scenario)


@pytest.mark.parametrize("method", ["put_if_absent", "reply", "get", "delete", "list"])
def test_a_store_that_is_away_for_a_while_only_delays(tmp_path: Path, method: str) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        store.go(6, method, ROLLOUTS)
        await run_job(tmp_path, store, EVERYTHING)
        assert len(store.refused) == 6

    run(scenario)


def test_nothing_is_acknowledged_while_the_store_is_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, workers=0, schedulers=0, store=store) as world:
            queue = world.queue = FlakyQueue()
            world.start_scheduler()
            world.start_worker(inline_bytes=EVERYTHING, idle=0.3)
            store.go(10_000, "put_if_absent", ROLLOUTS)
            await world.submit(world.spec())
            await soon(lambda: len(store.refused) > 10, "refused writes")
            assert queue.completions == []
            assert len(queue.renewals) >= 2, "the tasks are kept"
            store.go(0)
            await world.end_of()
            check_ended_well(world)
            assert len(queue.completions) == 6, "no sample was made twice"

    run(scenario)


@pytest.mark.parametrize("method", ["complete", "is_open", "read_results"])
def test_a_queue_that_is_away_for_a_while_only_delays(tmp_path: Path, method: str) -> None:
    async def scenario() -> None:
        queue = FlakyQueue()
        queue.refusals[method] = 5
        await run_job(tmp_path, MemoryStore(), EVERYTHING, queue)
        assert queue.refusals[method] == 0

    run(scenario)


def test_a_wiped_queue_costs_time_and_leaves_no_object(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            world.start_worker(inline_bytes=EVERYTHING)
            await world.submit(world.spec())
            for _ in range(3):
                await soon(lambda: bool(world.store.list(ROLLOUTS)) or world.view().finished, "an object")
                world.queue.wipe()
                await asyncio.sleep(0.1)
            await world.end_of()
            await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
            check_ended_well(world)
            assert world.calm.list(ROLLOUTS) == []

    run(scenario)


async def half_a_step(world: World) -> RolloutWorker:
    """A job whose first step has one chunk's results in objects, and a worker that does not make the other chunk."""
    services = world.services()
    generate = services.generate
    calls: list[int] = []

    async def once(call: GenerateCall, timeout: float) -> Generated:
        calls.append(1)
        if len(calls) > 1:
            raise Overloaded("busy", retry_after=0.01)
        return await generate(call, timeout)

    object.__setattr__(services, "generate", once)
    worker = world.start_worker("busy", services=services, inline_bytes=EVERYTHING, idle=0.3)
    await world.submit(world.spec())
    await soon(lambda: len(world.store.list(ROLLOUTS)) == 2, "the first chunk's objects")
    return worker


def test_a_job_that_is_cancelled_leaves_no_object(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await half_a_step(world)
            await cancel(world, now=True)
            assert (await world.end_of()).state == "CANCELLED"
            await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
            assert world.calm.list(ROLLOUTS) == []

    run(scenario)


def test_a_new_owner_reads_the_objects_that_the_old_one_left(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            first = world.start_scheduler("first")
            busy = await half_a_step(world)
            await first.stop()
            await soon(lambda: len(queue.completions) == 1, "the first chunk's end")
            busy.stop()
            world.start_worker("idle", inline_bytes=EVERYTHING)
            world.start_scheduler("second")
            await world.end_of()
            check_ended_well(world)
            assert world.view().epoch == 2
            assert len(queue.added) == 7, "the chunk that was done was not enqueued again"
            await soon(lambda: not world.calm.list(ROLLOUTS), "an object stayed")

    run(scenario)


def test_a_worker_whose_job_has_ended_takes_its_objects_away(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            queue.refusals["complete"] = 10_000
            world.start_worker(inline_bytes=EVERYTHING)
            await soon(lambda: len(world.store.list(ROLLOUTS)) == 2, "the chunk's objects")
            await queue.close_job("job-1")
            queue.refusals["complete"] = 0
            await soon(lambda: not world.store.list(ROLLOUTS), "an object stayed")
            assert [done for _, done in queue.completions] == [True]

    run(scenario)
