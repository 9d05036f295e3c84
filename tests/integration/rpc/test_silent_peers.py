"""Every client path ends with a clear error when its peer is silent, or stops in the middle of an answer."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.world import open_call
from tests.integration.rpc.servers import run
from tests.integration.rpc.silent import black_hole, stalling, stalling_rpc
from urllib3 import Retry

from quatrain.backoff import Backoff
from quatrain.client import AsyncClient, WaitTimedOut, asynchronous, downloads
from quatrain.client.connection import Connection
from quatrain.errors import DeadlineExpired, Unavailable
from quatrain.jobspec.reward_section import ServiceSource
from quatrain.orchestrator.peers import learner_session
from quatrain.orchestrator.peers.learner_session import LearnerLost, LearnerSession
from quatrain.orchestrator.peers.learners import LearnerPool
from quatrain.queue import redis
from quatrain.queue.protocol import Lease
from quatrain.queue.redis import RedisQueue
from quatrain.refs import ModelRef
from quatrain.reward.backends.remote import RemoteBackend
from quatrain.reward.samples import Batch
from quatrain.rpc.client.targets import PoolOptions, TargetPool
from quatrain.stages import PPO
from quatrain.storage import s3, s3_transport
from quatrain.storage.s3 import S3Address, S3Store
from quatrain.v1 import generation_pb2, generation_pb2_grpc, learner_pb2

LIMIT = 45.0
"""Of a whole test; each path is bounded by tenths of a second here."""
BEAT = learner_pb2.StepResponse(heartbeat=learner_pb2.Heartbeat(phase="train")).SerializeToString()
FIRST = dict.fromkeys(("Step", "Publish", "Save", "Export"), BEAT)
UNAVAILABLE = (Unavailable, DeadlineExpired)
KINDS = pytest.mark.parametrize("kind", ["silent", "stalls"])


@contextlib.asynccontextmanager
async def peer(kind: str) -> AsyncIterator[str]:
    """A gRPC address that hangs."""
    if kind == "silent":
        with black_hole() as address:
            yield address
    else:
        async with stalling_rpc(FIRST) as address:
            yield address


async def all_end(paths: Mapping[str, Awaitable[Any]], *errors: type[Exception], naming: str) -> None:
    """Every path raises one of these errors, which name the peer."""
    results = await asyncio.gather(*paths.values(), return_exceptions=True)
    for name, result in zip(paths, results, strict=True):
        assert isinstance(result, errors), f"{name}: {result!r}"
        assert naming in str(result), f"{name}: {result}"


@KINDS
def test_calls_of_the_services(kind: str) -> None:
    async def scenario() -> None:
        async with peer(kind) as address:
            options = PoolOptions(probe_timeout=0.2, keepalive=0.5, keepalive_timeout=0.5)
            async with TargetPool(address, service="quatrain.v1.GenerationService", options=options) as pool:
                call = pool.call(
                    lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).Generate,
                    generation_pb2.GenerateRequest(),
                    timeout=0.6,
                )
                await all_end({"call": call}, *UNAVAILABLE, naming=address)
            remote = RemoteBackend()
            batch = Batch("job", (), None, ModelRef("store:t", ""), {}, 0.3)  # type: ignore[arg-type]
            score = remote.score(ServiceSource(name="other", weight=1.0, target=address), batch)
            await all_end({"score": score}, *UNAVAILABLE, naming=address)
            await remote.close()

    run(scenario, limit=LIMIT)


@KINDS
def test_calls_of_a_learner(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPEN_TIMEOUT_SECONDS", "LOGPROBS_TIMEOUT_SECONDS", "STATUS_TIMEOUT_SECONDS", "LOST_AFTER_SECONDS"):
        monkeypatch.setattr(learner_session, name, 0.25)

    async def scenario() -> None:
        async with peer(kind) as address:
            call = open_call("job")
            session = LearnerSession(address, call.token)
            await all_end({"open": session.open(call)}, *UNAVAILABLE, naming=address)
            session.stage = PPO
            calls = {
                "train": session.train(1, None),
                "publish": session.publish(1),
                "save": session.save(1),
                "export": session.export({}),
                "logprobs": session.logprobs([], [], 1.0),
            }
            await all_end(calls, LearnerLost, naming=f"learner {address} lost at ppo ")
            await session.close()
            pool = LearnerPool([address])
            opening = pool.open(call, (0, "", "job"))
            await all_end({"pool": opening}, Unavailable, naming=address)
            await pool.free("job")

    run(scenario, limit=LIMIT)


@KINDS
def test_a_learner_that_opens_for_long_has_to_live(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOST_AFTER_SECONDS", "STATUS_TIMEOUT_SECONDS", "SIGN_OF_LIFE_SECONDS", "LIFE_POLL_SECONDS"):
        monkeypatch.setattr(learner_session, name, 0.2)

    async def scenario() -> None:
        async with peer(kind) as address:
            call = open_call("job")
            session = LearnerSession(address, call.token)
            with pytest.raises(Unavailable, match=r"no sign of life for 0.2 s|cannot be reached"):
                await session.open(call)
            await session.abandon()

    run(scenario, limit=LIMIT)


@KINDS
def test_calls_of_the_client(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(Connection.call.__kwdefaults__, "timeout", 0.3)  # type: ignore[arg-type]
    monkeypatch.setitem(Connection.stream.__kwdefaults__, "lost_after", 0.3)  # type: ignore[arg-type]
    monkeypatch.setattr(asynchronous, "CHECK_SECONDS", 0.3)
    spec = {
        "name": "job",
        "model": {"uri": f"sha256:{'0' * 64}"},
        "reward": {"functions": [{"path": "rewards:count"}]},
        "ppo": {"prompts": f"sha256:{'0' * 64}", "steps": 1},
    }
    monkeypatch.setattr(downloads, "BACKOFF", Backoff(0.02, 1.0))
    (tmp_path / "data.jsonl").write_text('{"prompt": "a"}\n')

    async def updates(stream: AsyncGenerator[Any, None]) -> None:
        async for _ in stream:
            pass

    async def scenario() -> None:
        async with peer(kind) as address, AsyncClient(address) as client:
            calls: dict[str, Awaitable[Any]] = {
                "submit": client.submit(spec),
                "get": client.get("job"),
                "list": client.list(),
                "watch": updates(client.watch("job", patience=0.5)),
                "wait": client.wait("job", timeout=1.0),
                "metrics": client.metrics("job"),
                "rollouts": client.rollouts("job", step=1),
                "events": client.events("job"),
                "checkpoints": client.checkpoints("job"),
                "upload": client.upload(tmp_path / "data.jsonl"),
                "list_models": client.list_models(),
                "download": client.download("job", tmp_path / "model"),
                "download_model": client.download_model("models://m", tmp_path / "named"),
            }
            await all_end(calls, *UNAVAILABLE, WaitTimedOut, naming="")

    run(scenario, limit=LIMIT)


def redis_calls(queue: RedisQueue) -> dict[str, Awaitable[Any]]:
    lease = Lease("pool", "1-1", "worker", "job", b"", "nonce")
    return {
        "check": queue.check(),
        "open_job": queue.open_job("job"),
        "close_job": queue.close_job("job"),
        "is_open": queue.is_open("job"),
        "add_task": queue.add_task("pool", "job", b""),
        "gone": queue.gone("pool", ["1-1"]),
        "lease": queue.lease("pool", "worker", count=1, block=1.0),
        "reclaim": queue.reclaim("pool", "worker", idle=1.0, count=1),
        "renew": queue.renew(lease),
        "complete": queue.complete(lease, [b""]),
        "read_results": queue.read_results("job", "0", count=1, block=1.0),
        "delete_results": queue.delete_results("job", ["1-1"]),
        "hold": queue.hold("job", "owner", 1.0),
        "holder": queue.holder("job"),
        "holders": queue.holders(["job"]),
        "release": queue.release("job", "owner"),
        "sentinel": queue.sentinel(),
        "leave": queue.leave("pool", "worker"),
        "forget_workers": queue.forget_workers("pool", idle=1.0),
        "backlog": queue.backlog("pool"),
    }


@pytest.mark.parametrize("beginning", [None, b"$1000\r\nthe beginning"], ids=["silent", "stalls"])
def test_calls_of_the_queue(beginning: bytes | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_COMMAND_TIMEOUT", "_BLOCKING_TIMEOUT", "_CONNECT_TIMEOUT"):
        monkeypatch.setattr(redis, name, 0.3)

    async def scenario() -> None:
        with black_hole() if beginning is None else stalling(beginning) as address:
            queue = RedisQueue(f"redis://{address}/0")
            calls = redis_calls(queue)
            missing = {name for name in vars(RedisQueue) if not name.startswith("_")} - {*calls, "close"}
            assert not missing
            await all_end(calls, Unavailable, naming=f"Redis at {address}")
            await queue.close()

    run(scenario, limit=LIMIT)


HEADERS = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\nETag: x\r\nLast-Modified: Sat, 01 Jan 2022 00:00:00 GMT\r\n\r\n"


def store_calls(store: S3Store, folder: Path) -> dict[str, Callable[[], Any]]:
    file = folder / "file"
    file.write_bytes(b"data")
    return {
        "put_if_absent": lambda: store.put_if_absent("a", b"data"),
        "put": lambda: store.put("a", b"data"),
        "put_file": lambda: store.put_file("a", file),
        "get": lambda: store.get("a"),
        "get_range": lambda: store.get_range("a", 0, 10),
        "get_file": lambda: store.get_file("a", folder / "copy"),
        "stream": lambda: list(store.stream("a")),
        "list": lambda: store.list("a"),
        "delete": lambda: store.delete("a"),
        "stat": lambda: store.stat("a"),
        "ensure_bucket": lambda: store.ensure_bucket(create=True),
    }


@pytest.mark.parametrize("beginning", [None, HEADERS + b"the beginning"], ids=["silent", "stalls"])
def test_calls_of_the_object_store(beginning: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (s3, "_READ_TIMEOUT"),
        (s3, "_PART_TIMEOUT"),
        (s3_transport, "_CONNECT_TIMEOUT"),
        (s3_transport, "SEND_TIMEOUT"),
    ):
        monkeypatch.setattr(module, name, 0.2)
    monkeypatch.setattr(s3_transport, "Retry", lambda **options: Retry(**{**options, "backoff_factor": 0.0}))

    async def scenario() -> None:
        with black_hole() if beginning is None else stalling(beginning) as address:
            store = S3Store(S3Address(address, "bucket", "key", "secret", secure=False, total_wait=0.3))
            calls = store_calls(store, tmp_path)
            missing = {name for name in vars(S3Store) if not name.startswith("_")} - {*calls, "name"}
            assert not missing
            if beginning is not None:  # HTTP: these look at the headers only, and they have come
                for name in ("delete", "stat", "ensure_bucket"):
                    del calls[name]
            waiting = {name: asyncio.to_thread(call) for name, call in calls.items()}
            started = time.monotonic()
            await all_end(waiting, Unavailable, naming=f"s3 http://{address}/bucket")
            assert time.monotonic() - started < LIMIT

    run(scenario, limit=LIMIT)
