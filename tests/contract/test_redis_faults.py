"""The Redis queue when the server is full, away, frozen, restarted or of the wrong kind; and against a model."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis import Redis
from tests.servers.redis import RedisServer, run_redis, valkey_binary

from quatrain.errors import InvalidInput, Unavailable
from quatrain.local.ports import free_port
from quatrain.queue import Lease, RolloutQueue
from quatrain.queue.memory import MemoryQueue
from quatrain.queue.redis import RedisQueue


def with_queue(url: str, scenario: Callable[[RedisQueue], Awaitable[None]]) -> None:
    async def go() -> None:
        queue = RedisQueue(url)
        try:
            await scenario(queue)
        finally:
            await queue.close()

    asyncio.run(go())


async def fill(queue: RedisQueue) -> None:
    for _ in range(1000):
        await queue.add_task("fill", "job", bytes(60_000))


def test_a_full_server_refuses_and_loses_nothing(tmp_path: Path) -> None:
    async def scenario(queue: RedisQueue) -> None:
        await queue.open_job("job")
        await queue.add_task("pool", "job", b"task")
        (lease,) = await queue.lease("pool", "w", count=1, block=1)
        with pytest.raises(Unavailable, match="full"):
            await fill(queue)
        with pytest.raises(Unavailable, match="full"):
            await queue.complete(lease, [bytes(60_000)] * 8)
        assert await queue.read_results("job", "0", count=10, block=0) == [], "nothing was half done"

        with Redis.from_url(server.url) as control:
            control.config_set("maxmemory", "200mb")

        assert await queue.renew(lease)
        assert await queue.complete(lease, [bytes(60_000)] * 8)
        assert len(await queue.read_results("job", "0", count=10, block=0)) == 8

    with run_redis(valkey_binary(), tmp_path, options=("--maxmemory", "8mb")) as server:
        with_queue(server.url, scenario)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--cluster-enabled", "yes"), "Cluster"),
        (("--maxmemory", "1gb", "--maxmemory-policy", "allkeys-lru"), "evicts"),
        (("--replicaof", "127.0.0.1 1"), "replica"),
    ],
)
def test_servers_of_the_wrong_kind_are_refused(options: tuple[str, ...], message: str, tmp_path: Path) -> None:
    async def scenario(queue: RedisQueue) -> None:
        with pytest.raises(InvalidInput, match=message):
            await queue.check()

    with run_redis(valkey_binary(), tmp_path, options=options) as server:
        with_queue(server.url, scenario)


def test_a_wrong_password_is_said_and_never_printed(tmp_path: Path) -> None:
    async def scenario(queue: RedisQueue) -> None:
        with pytest.raises(Unavailable, match="user or password") as refused:
            await queue.check()
        assert "guess" not in refused.value.message

    with run_redis(valkey_binary(), tmp_path, append_only=False) as server:
        with Redis.from_url(server.url) as control:
            control.config_set("requirepass", "secret")
        with_queue(f"redis://:guess@{server.process.address}", scenario)


def test_a_server_that_is_away_is_unavailable_in_bounded_time() -> None:
    async def scenario(queue: RedisQueue) -> None:
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await queue.check()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await queue.lease("pool", "w", count=1, block=1)
        assert time.monotonic() - began < 5

    with_queue(f"redis://127.0.0.1:{free_port()}", scenario)


def test_a_frozen_server_is_unavailable_and_usable_again_when_it_wakes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.queue.redis._COMMAND_TIMEOUT", 0.2)

    async def scenario(queue: RedisQueue) -> None:
        await queue.check()
        server.process.suspend()
        began = time.monotonic()
        with pytest.raises(Unavailable, match="cannot be reached"):
            await queue.hold("job", "a", 3)
        assert time.monotonic() - began < 3
        server.process.resume()
        assert await queue.hold("job", "a", 3), "nobody else holds it, whatever became of the first call"

    with run_redis(valkey_binary(), tmp_path) as server:
        with_queue(server.url, scenario)


def test_a_killed_server_that_kept_its_log_goes_on(tmp_path: Path) -> None:
    port = free_port()

    async def scenario(queue: RedisQueue) -> None:
        with run_redis(valkey_binary(), tmp_path, port=port) as server:
            await queue.open_job("job")
            sentinel = await queue.sentinel()
            await queue.add_task("pool", "job", b"task")
            (lease,) = await queue.lease("pool", "w", count=1, block=1)
            await asyncio.sleep(1.1)  # the append-only file is written to disk once a second
            server.process.kill()
        with run_redis(valkey_binary(), tmp_path, port=port):
            assert await queue.sentinel() == sentinel
            assert await queue.complete(lease, [b"result"])
            assert [data for _, data in await queue.read_results("job", "0", count=1, block=0)] == [b"result"]

    with_queue(f"redis://127.0.0.1:{port}", scenario)


# One step of the model test: what to do, with which worker.
steps = st.lists(
    st.tuples(
        st.sampled_from(["add", "lease", "reclaim", "renew", "complete", "open", "close", "forget", "tidy", "wipe"]),
        st.sampled_from(["w1", "w2"]),
    ),
    max_size=30,
)


class Run:
    """One queue going through the steps; `seen` is everything that it answered, entry ids left out."""

    def __init__(self, queue: RolloutQueue, wipe: Callable[[], object]) -> None:
        self.queue = queue
        self.wipe = wipe
        self.leases: list[Lease] = []
        self.seen: list[object] = []

    async def step(self, number: int, action: str, worker: str) -> None:
        queue = self.queue
        if action == "add":
            await queue.add_task("pool", "job", b"%d" % number)
        elif action == "lease":
            self.took(await queue.lease("pool", worker, count=2, block=0))
        elif action == "reclaim":
            self.took(await queue.reclaim("pool", worker, idle=0, count=2))
        elif action == "renew":
            self.seen.append([await queue.renew(lease) for lease in self.leases])
        elif action == "complete":
            for lease in self.leases[:3]:
                self.seen.append(await queue.complete(lease, [lease.payload, b"%d" % number]))
        elif action == "open":
            await queue.open_job("job")
        elif action == "close":
            await queue.close_job("job")
        elif action == "forget":
            found = await queue.read_results("job", "0", count=1, block=0)
            await queue.delete_results("job", [entry_id for entry_id, _ in found])
        elif action == "tidy":
            await queue.forget_workers("pool", idle=0)
        else:
            self.wipe()
        self.seen.append(await queue.is_open("job"))
        results = await queue.read_results("job", "0", count=100, block=0)
        self.seen.append(([data for _, data in results], (await queue.backlog("pool")).waiting))

    def took(self, leases: list[Lease]) -> None:
        self.leases += leases
        self.seen.append([(lease.payload, lease.worker, lease.job) for lease in leases])


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(plan=steps)
def test_redis_answers_as_the_memory_queue_does(plan: list[tuple[str, str]], valkey_server: RedisServer) -> None:
    async def scenario(queue: RedisQueue) -> None:
        with Redis.from_url(valkey_server.url) as control:
            control.flushall()
            model = MemoryQueue()
            real, expected = Run(queue, control.flushall), Run(model, model.wipe)
            for number, (action, worker) in enumerate(plan):
                await real.step(number, action, worker)
                await expected.step(number, action, worker)
                assert real.seen == expected.seen

    with_queue(valkey_server.url, scenario)
