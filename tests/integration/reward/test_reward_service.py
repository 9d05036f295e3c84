"""The reward service over real gRPC: as configured, with its own interceptors, and as a process."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.unit.reward.scenery import ids_of, make_reward_model

from quatrain.config import ComputeConfig, ProcessConfig, RewardConfig, ServerConfig
from quatrain.digests import sha256_hex
from quatrain.errors import InvalidInput, QuatrainError, RewardFunctionError
from quatrain.refs import ModelRef
from quatrain.reward.__main__ import SERVICE, build_service, register
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.server.server import RpcServer
from quatrain.storage import ObjectStore
from quatrain.storage.folders import upload_model_folder
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import common_pb2, reward_pb2, reward_pb2_grpc

T = TypeVar("T")
Outcome = reward_pb2.SampleScore.Outcome

CODE = b"""
def count(completions, log_metric, answer, **kwargs):
    log_metric("answers", len(answer))
    return [float(completion.count("c")) for completion in completions]

def share(completions, log_extra, **kwargs):
    log_extra("letters", [len(completion) for completion in completions])
    return {"a": [c.count("a") for c in completions], "b": [None if "d" in c else 1.0 for c in completions]}

def fails(**kwargs):
    raise ValueError("never works")
"""


def sample(completion: str, **changes: Any) -> reward_pb2.ScoreSample:
    stop = completion.endswith("$")
    fields: dict[str, Any] = {
        "prompt_ids": ids_of("ab"),
        "completion_ids": ids_of(completion),
        "prompt_json": '"ab"',
        "finish_reason": common_pb2.FINISH_REASON_STOP if stop else common_pb2.FINISH_REASON_LENGTH,
        "extra_json": '{"answer": 1}',
    }
    return reward_pb2.ScoreSample(**{**fields, **changes})


def request(tokenizer: ModelRef, section: dict[str, Any], *samples: reward_pb2.ScoreSample) -> reward_pb2.ScoreRequest:
    return reward_pb2.ScoreRequest(
        job="job",
        samples=samples,
        reward_json=json.dumps(section),
        missing_eos_penalty=0.5,
        tokenizer=tokenizer.to_proto(),
    )


def uploaded(store: ObjectStore, *names: str) -> list[dict[str, Any]]:
    digest = sha256_hex(CODE)
    store.put(f"data/sha256/{digest}", CODE)
    return [{"path": f"rewards.py:{name}", "code_digest": digest} for name in names]


class Client:
    """Calls one server."""

    def __init__(self, target: str, channel: grpc.aio.Channel) -> None:
        self.target = target
        self._stub: Any = reward_pb2_grpc.RewardServiceStub(channel)

    async def score(self, message: reward_pb2.ScoreRequest, timeout: float | None = 30.0) -> reward_pb2.ScoreResponse:
        """The response. Raises what the server reports."""
        try:
            response: reward_pb2.ScoreResponse = await self._stub.Score(message, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="reward", target=self.target) from error
        return response


def served(tmp_path: Path, store: ObjectStore, work: Callable[[Client], Awaitable[T]]) -> T:
    """Do some work with a client of a server that is stopped afterwards."""

    async def main() -> T:
        config = ProcessConfig(
            server=ServerConfig(shutdown_grace=0.1),
            compute=ComputeConfig(device="cpu", threads=1),
            reward=RewardConfig(allow_code=True),
        )
        async with AsyncExitStack() as stack:
            service = build_service(config, store, tmp_path / "scratch")
            stack.push_async_callback(service.close)
            server = RpcServer(config.server, "reward", partial(register, service))
            await server.start()
            stack.push_async_callback(server.stop)
            await server.serve()
            target = f"127.0.0.1:{server.ports.port}"
            channel = open_channel(target, service=SERVICE)
            stack.push_async_callback(channel.close, None)
            return await work(Client(target, channel))

    return asyncio.run(main())


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def model(tmp_path: Path, store: MemoryStore) -> ModelRef:
    return upload_model_folder(store, make_reward_model(tmp_path / "model", offset=0.25))


def test_model_and_functions_make_one_score(tmp_path: Path, store: MemoryStore, model: ModelRef) -> None:
    ref = {"uri": f"sha256:{model.digest}", "digest": model.digest}
    section = {"models": [ref], "functions": uploaded(store, "count", "share"), "scale": 2.0}

    async def work(client: Client) -> reward_pb2.ScoreResponse:
        return await client.score(request(model, section, sample("ac$"), sample("cd"), sample("")))

    response = served(tmp_path, store, work)

    assert [score.outcome for score in response.scores] == [
        Outcome.OUTCOME_SCORED,
        Outcome.OUTCOME_SCORED,
        Outcome.OUTCOME_REFUSED,
    ]
    first, second, third = response.scores
    terms = {term.name: term.value if term.HasField("value") else None for term in first.terms}
    assert list(terms) == ["model", "count", "a", "b"]
    assert {name: value for name, value in terms.items() if name != "model"} == {"count": 1.0, "a": 1.0, "b": 1.0}
    assert first.score == pytest.approx(2.0 * ((terms["model"] or 0.0) - 0.25 + 3.0))
    assert not second.terms[3].HasField("value")
    assert second.score == pytest.approx(2.0 * (second.terms[0].value - 0.25 + 1.0) - 0.5)
    assert third.reason == "the completion is empty"
    assert [json.loads(score.logged_json or "{}") for score in response.scores] == [{"letters": 2}, {"letters": 2}, {}]
    assert [(metric.name, metric.value) for metric in response.metrics] == [("answers", 2.0)]
    assert len(response.reward_version) == 64
    assert response.compute_seconds > 0


@pytest.mark.parametrize(
    ("section", "kind", "message"),
    [
        ({"functions": "fails"}, RewardFunctionError, "ValueError: never works"),
        ({}, InvalidInput, "no reward source"),
        ({"models": [{"uri": "nowhere"}]}, InvalidInput, "nowhere"),
    ],
)
def test_errors_keep_their_class_and_say_what(
    tmp_path: Path,
    store: MemoryStore,
    model: ModelRef,
    section: dict[str, Any],
    kind: type[QuatrainError],
    message: str,
) -> None:
    if "functions" in section:
        section = {"functions": uploaded(store, section["functions"])}

    async def work(client: Client) -> None:
        with pytest.raises(kind, match=message):
            await client.score(request(model, section, sample("a$")))

    served(tmp_path, store, work)


def test_a_call_without_deadline_is_refused(tmp_path: Path, store: MemoryStore, model: ModelRef) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(InvalidInput, match="deadline"):
            await client.score(request(model, {}), timeout=None)

    served(tmp_path, store, work)


class OutsideService(reward_pb2_grpc.RewardServiceServicer):
    """A reward service that somebody else runs: it reads the completion's text, has no tokenizer and no health."""

    def __init__(self) -> None:
        self.seen: list[reward_pb2.ScoreRequest] = []

    async def Score(self, request: reward_pb2.ScoreRequest, context: Any) -> reward_pb2.ScoreResponse:
        self.seen.append(request)
        scores = [
            reward_pb2.SampleScore(
                outcome=Outcome.OUTCOME_SCORED, score=len(one.completion), logged_json='{"from": "outside"}'
            )
            for one in request.samples
        ]
        scores[1:2] = [reward_pb2.SampleScore(outcome=Outcome.OUTCOME_REFUSED, reason="cannot read it")]
        scores[2:3] = [reward_pb2.SampleScore(outcome=Outcome.OUTCOME_SKIPPED)]
        if request.job == "short":
            scores.pop()
        metrics = [common_pb2.NamedValue(name="outside", value=4.0)]
        return reward_pb2.ScoreResponse(scores=scores, metrics=metrics, reward_version="v7")


def with_outside_service(
    tmp_path: Path, store: ObjectStore, work: Callable[[Client, OutsideService, str], Awaitable[T]]
) -> T:
    async def both(client: Client) -> T:
        outside, server = OutsideService(), grpc.aio.server()
        reward_pb2_grpc.add_RewardServiceServicer_to_server(outside, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        try:
            return await work(client, outside, f"127.0.0.1:{port}")
        finally:
            await server.stop(None)

    return served(tmp_path, store, both)


def test_a_service_outside_gets_text_and_its_score_is_composed_here(
    tmp_path: Path, store: MemoryStore, model: ModelRef
) -> None:
    async def work(client: Client, outside: OutsideService, target: str) -> None:
        section = {"service": target, "scale": 10.0, "offset": 1.0}
        samples = [sample("ac$"), sample("b$"), sample("c$"), sample("acd")]

        response = await client.score(request(model, section, *samples))

        assert [score.outcome for score in response.scores] == [
            Outcome.OUTCOME_SCORED,
            Outcome.OUTCOME_REFUSED,
            Outcome.OUTCOME_SKIPPED,
            Outcome.OUTCOME_SCORED,
        ]
        assert [score.score for score in response.scores] == [10.0, 0.0, 0.0, 19.5]
        assert response.scores[0].terms[0].name == "service"
        assert response.scores[0].terms[0].value == 2.0
        assert response.scores[0].logged_json == '{"from": "outside"}'
        assert response.scores[1].reason == "cannot read it"
        assert response.metrics[0].name == "outside"
        assert [one.completion for one in outside.seen[0].samples] == ["ac", "b", "c", "acd"]
        assert outside.seen[0].missing_eos_penalty == 0.0

    with_outside_service(tmp_path, store, work)


def test_a_service_outside_that_answers_for_too_few_samples(
    tmp_path: Path, store: MemoryStore, model: ModelRef
) -> None:
    async def work(client: Client, outside: OutsideService, target: str) -> None:
        message = request(model, {"service": target}, *(sample("a$") for _ in range(4)))
        message.job = "short"
        with pytest.raises(InvalidInput, match="returned 3 scores for 4 samples"):
            await client.score(message)

    with_outside_service(tmp_path, store, work)


def test_a_service_outside_that_is_not_there_is_named(tmp_path: Path, store: MemoryStore, model: ModelRef) -> None:
    async def work(client: Client) -> None:
        with pytest.raises(QuatrainError, match=r"remote reward service at 127\.0\.0\.1:1"):
            await client.score(request(model, {"service": "127.0.0.1:1", "timeout": 5}, sample("a$")))

    served(tmp_path, store, work)


def port_in(file: Path) -> int:
    """The port in a port file, once there is one."""
    until = time.monotonic() + 60
    while not file.is_file() and time.monotonic() < until:
        time.sleep(0.05)
    return int(json.loads(file.read_text())["port"])


def test_the_entry_point_loads_torch_only_with_a_model() -> None:
    code = "import sys, quatrain.reward.__main__; assert not {'torch', 'transformers'} & set(sys.modules)"

    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    finished = subprocess.run([sys.executable, "-c", code], env=environment, timeout=60, check=False)

    assert finished.returncode == 0


def test_the_entry_point_serves_becomes_healthy_and_leaves_nothing_behind(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    model = upload_model_folder(store, make_reward_model(tmp_path / "model"))
    (tmp_path / "process_rewards.py").write_text(
        textwrap.dedent("""
            import os
            def own_process(completions, **kwargs):
                return [float(os.getpid())] * len(completions)
        """)
    )

    async def main() -> int:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "quatrain.reward",
            f"--storage.root={tmp_path / 'store'}",
            f"--server.port_file={tmp_path / 'ports.json'}",
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
        )
        try:
            target = f"127.0.0.1:{await asyncio.to_thread(port_in, tmp_path / 'ports.json')}"
            async with open_channel(target, service=SERVICE) as channel:
                check: Any = health_pb2_grpc.HealthStub(channel)
                health = await check.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=5)
                assert health.status == health_pb2.HealthCheckResponse.SERVING
                section = {"functions": [{"path": "process_rewards:own_process"}]}
                response = await Client(target, channel).score(request(model, section, sample("a$")))
        finally:
            process.send_signal(signal.SIGTERM)
            async with asyncio.timeout(20):
                code = await process.wait()
        assert code == 0
        return int(response.scores[0].score)

    runner = asyncio.run(main())

    with pytest.raises(ProcessLookupError):
        os.kill(runner, 0)
