"""The pool over replicas that join, leave, die, fill up and hang."""

import asyncio
import contextlib
import itertools
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.rpc.servers import SERVICE, Replica, address_of, generate_of, run, serving

from quatrain.backoff import Backoff
from quatrain.config import ServerConfig
from quatrain.errors import DeadlineExpired, InvalidInput, Overloaded, Unavailable
from quatrain.rpc.client.targets import PoolOptions, TargetPool, resolve_targets, write_targets_file
from quatrain.v1 import generation_pb2 as pb

QUICK = PoolOptions(backoff=Backoff(0.05, 0.2, jitter=0.2), probe_timeout=1.0)


async def ask(pool: TargetPool, timeout: float = 5.0) -> None:
    await pool.call(generate_of, pb.GenerateRequest(), timeout=timeout)


def test_replicas_that_join_get_calls_within_two_seconds(tmp_path: Path) -> None:
    targets = tmp_path / "targets.json"

    async def work() -> None:
        replicas = [Replica() for _ in range(3)]
        async with contextlib.AsyncExitStack() as stack:
            first = await stack.enter_async_context(serving(replicas[0]))
            write_targets_file(targets, {"generation": [address_of(first)], "reward": ["127.0.0.1:1"]})
            pool = await stack.enter_async_context(TargetPool(f"targets-file:{targets}#generation", service=SERVICE))
            for _ in range(5):
                await ask(pool)
            others = [await stack.enter_async_context(serving(replica)) for replica in replicas[1:]]
            write_targets_file(targets, {"generation": [address_of(server) for server in (first, *others)]})
            joined = time.monotonic()
            while min(replica.calls for replica in replicas) == 0:
                await ask(pool)
                await asyncio.sleep(0.01)
            assert time.monotonic() - joined < 2.0
            before = [replica.calls for replica in replicas]
            for _ in range(30):
                await ask(pool)
            assert [replica.calls - count for replica, count in zip(replicas, before, strict=True)] == [10, 10, 10]

    run(work)


def test_a_replica_of_a_list_that_starts_later_gets_calls() -> None:
    async def work() -> None:
        early, late = Replica(), Replica()
        async with serving(Replica()) as placeholder:
            port = placeholder.ports.port
        async with (
            serving(early) as server,
            TargetPool(f"{address_of(server)},127.0.0.1:{port}", service=SERVICE) as pool,
        ):
            for _ in range(5):
                await ask(pool)
            async with serving(late, ServerConfig(port=port, shutdown_grace=0.0)):
                started = time.monotonic()
                while late.calls == 0:
                    await ask(pool)
                    await asyncio.sleep(0.01)
                assert time.monotonic() - started < 3.0

    run(work)


def test_a_dead_replicas_calls_are_made_elsewhere() -> None:
    async def work() -> None:
        begun = asyncio.Event()

        async def hang(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            begun.set()
            await asyncio.sleep(60)
            return pb.GenerateResponse()

        doomed, healthy = Replica(hang), Replica()
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(doomed))
            other = await stack.enter_async_context(serving(healthy, ready=False))
            pool = TargetPool(f"{address_of(server)},{address_of(other)}", service=SERVICE, options=QUICK)
            await stack.enter_async_context(pool)
            call = asyncio.create_task(ask(pool, 10.0))
            await begun.wait()
            await other.serve()
            await server.stop()
            await call
            assert healthy.calls == 1
            assert pool.usable == (address_of(other),)
            for _ in range(5):
                await ask(pool)
            assert (doomed.calls, healthy.calls) == (1, 6)
            assert len(set(healthy.request_ids)) == 6
            assert doomed.request_ids[0] == healthy.request_ids[0]

    run(work)


def test_calls_in_work_decide_who_is_next() -> None:
    async def work() -> None:
        open_gate = asyncio.Event()
        open_gate.set()

        async def wait(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            await open_gate.wait()
            return pb.GenerateResponse()

        slow, fast = Replica(wait), Replica()
        async with contextlib.AsyncExitStack() as stack:
            servers = [await stack.enter_async_context(serving(replica)) for replica in (slow, fast)]
            async with TargetPool(",".join(map(address_of, servers)), service=SERVICE) as pool:
                while min(slow.calls, fast.calls) == 0:
                    await ask(pool)
                open_gate.clear()
                slow.calls = 0
                pending = [asyncio.create_task(ask(pool)) for _ in range(2)]
                await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
                for _ in range(4):
                    await ask(pool)
                assert slow.calls == 1
                open_gate.set()
                await asyncio.gather(*pending)

    run(work)


def test_an_overloaded_replica_is_left_for_another_and_tried_again() -> None:
    async def work() -> None:
        async def full(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            if len(attempts) < 3:
                attempts.append(time.monotonic())
                raise Overloaded("the queue is full", retry_after=0.2)
            return pb.GenerateResponse()

        attempts: list[float] = []
        async with serving(Replica(full)) as server, TargetPool(address_of(server), service=SERVICE) as pool:
            await ask(pool)
            gaps = [later - earlier for earlier, later in itertools.pairwise(attempts)]
            assert len(attempts) == 3
            assert all(0.19 < gap < 1.0 for gap in gaps)
            attempts.clear()
            with pytest.raises(Overloaded, match=r"GenerationService at 127.0.0.1:\d+: the queue is full"):
                await ask(pool, 0.3)

    run(work)


def test_the_deadline_holds_when_nobody_is_there_and_the_error_says_where() -> None:
    async def work() -> None:
        async with TargetPool("127.0.0.1:9,127.0.0.1:10", service=SERVICE, options=QUICK) as pool:
            started = time.monotonic()
            with pytest.raises(Unavailable) as caught:
                await ask(pool, 0.5)
            assert 0.45 < time.monotonic() - started < 1.0
            assert SERVICE in caught.value.message
            assert "127.0.0.1:9: " in caught.value.message
            assert "127.0.0.1:10: " in caught.value.message
            assert "connection refused" in caught.value.message

    run(work)


def test_the_deadline_holds_while_a_replica_hangs() -> None:
    async def work() -> None:
        async def hang(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            await asyncio.sleep(60)
            return pb.GenerateResponse()

        async with serving(Replica(hang)) as server, TargetPool(address_of(server), service=SERVICE) as pool:
            with pytest.raises(DeadlineExpired, match="no answer within the deadline"):
                await ask(pool, 0.3)

    run(work)


def test_other_errors_are_the_answer_and_are_not_tried_again() -> None:
    async def work() -> None:
        async def refuse(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            raise InvalidInput("prompt 3 is empty")

        replica = Replica(refuse)
        async with serving(replica) as server, TargetPool(address_of(server), service=SERVICE) as pool:
            with pytest.raises(InvalidInput, match="prompt 3 is empty"):
                await ask(pool)
            assert replica.calls == 1

    run(work)


def test_an_unavailable_replica_is_tried_again_until_the_deadline() -> None:
    async def work() -> None:
        async def away(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            raise Unavailable("the store is away")

        replica = Replica(away)
        async with serving(replica) as server, TargetPool(address_of(server), service=SERVICE) as pool:
            with pytest.raises(Unavailable, match="the store is away"):
                await ask(pool, 0.6)
            assert 2 <= replica.calls <= 6

    run(work)


def test_a_replica_that_left_the_file_finishes_its_call_and_gets_no_more(tmp_path: Path) -> None:
    targets = tmp_path / "targets.json"

    async def work() -> None:
        begun, release = asyncio.Event(), asyncio.Event()

        async def wait(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            begun.set()
            await release.wait()
            return pb.GenerateResponse()

        leaving, staying = Replica(wait), Replica()
        async with serving(leaving) as one, serving(staying) as two:
            write_targets_file(targets, [address_of(one)])
            options = PoolOptions(refresh=0.05)
            async with TargetPool(f"targets-file:{targets}", service=SERVICE, options=options) as pool:
                call = asyncio.create_task(ask(pool))
                await begun.wait()
                write_targets_file(targets, [address_of(two)])
                while staying.calls < 5:
                    await asyncio.sleep(0.06)
                    with contextlib.suppress(DeadlineExpired):
                        await ask(pool, 0.3)
                assert pool.usable == (address_of(two),)
                release.set()
                await call

    run(work)


def test_a_missing_file_says_so_and_one_that_appears_is_used(tmp_path: Path) -> None:
    targets = tmp_path / "targets.json"

    async def work() -> None:
        options = PoolOptions(refresh=0.05)
        async with TargetPool(f"targets-file:{targets}", service=SERVICE, options=options) as pool:
            with pytest.raises(Unavailable, match=r"targets.json cannot be read: No such file"):
                await ask(pool, 0.2)
            async with serving(Replica()) as server:
                call = asyncio.create_task(ask(pool))
                await asyncio.sleep(0.1)
                write_targets_file(targets, [address_of(server)])
                await call

    run(work)


def test_names_and_lists_are_resolved(tmp_path: Path) -> None:
    async def work() -> None:
        write_targets_file(tmp_path / "t.json", ["127.0.0.1:5"])
        found = await resolve_targets(
            ["dns:///localhost:7", "127.0.0.1:5,127.0.0.1:6", f"targets-file:{tmp_path}/t.json"]
        )
        assert found == ("127.0.0.1:7", "127.0.0.1:5", "127.0.0.1:6")

        replica = Replica()
        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(replica))
            pool = TargetPool(f"dns:///localhost:{server.ports.port}", service=SERVICE)
            await ask(await stack.enter_async_context(pool))
        assert replica.calls == 1

    run(work)


@pytest.mark.parametrize(
    "target", ["", "host", "host:port", "http://host:1", "a:1,,b:2", "targets-file:here.json", "dns:///name"]
)
def test_targets_of_unknown_form_are_refused(target: str) -> None:
    with pytest.raises(InvalidInput):
        TargetPool(target, service=SERVICE)


@pytest.mark.slow
def test_pings_of_a_long_call_are_not_taken_amiss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.rpc.server.server.MIN_PING_INTERVAL_MS", 500)

    async def work() -> None:
        async def long(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            await asyncio.sleep(8)
            return pb.GenerateResponse()

        replica = Replica(long)
        options = PoolOptions(keepalive=1.0)
        async with serving(replica) as server, TargetPool(address_of(server), service=SERVICE, options=options) as pool:
            await ask(pool, 15.0)
            assert replica.calls == 1

    run(work)
