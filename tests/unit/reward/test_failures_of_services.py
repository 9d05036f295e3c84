"""Every way in which another reward service can fail is a typed outcome, never a number."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.unit.reward.scenery import make_tokenizer
from tests.unit.reward.test_failures_are_outcomes import TWO, Outcomes

from quatrain.errors import (
    DeadlineExpired,
    InvalidInput,
    Overloaded,
    QuatrainError,
    Unavailable,
)
from quatrain.refs import ModelRef
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.backends.models import ModelBackend, ModelSettings
from quatrain.reward.backends.remote import RemoteBackend
from quatrain.reward.service import Backends, RewardService, ScoreCall
from quatrain.storage.folders import FolderCache
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import common_pb2, reward_pb2

SCORED = reward_pb2.SampleScore.OUTCOME_SCORED


def answer(*scores: float, **more: Any) -> reward_pb2.ScoreResponse:
    each = [reward_pb2.SampleScore(outcome=SCORED, score=value, **more) for value in scores]
    return reward_pb2.ScoreResponse(scores=each)


def outside(tmp_path: Path, handler: Callable[[bytes, Any], Awaitable[bytes]], calls: int = 1) -> list[Outcomes]:
    """Score two samples with a service outside that answers with bytes of its own, so many times."""

    async def handle(request: bytes, context: Any) -> bytes:
        return await handler(request, context)

    method = grpc.unary_unary_rpc_method_handler(handle)

    found: list[Outcomes] = []

    async def main() -> None:
        server = grpc.aio.server()
        generic = grpc.method_handlers_generic_handler("quatrain.v1.RewardService", {"Score": method})
        server.add_generic_rpc_handlers((generic,))
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        folders = FolderCache(MemoryStore(), tmp_path / "cache", 2**30)
        functions = FunctionBackend(MemoryStore(), FunctionSettings())
        models = ModelBackend(folders, ModelSettings(device="cpu", threads=1))
        service = RewardService(folders, Backends(models, functions, RemoteBackend()))
        tokenizer = ModelRef(make_tokenizer(tmp_path / "tokenizer").as_uri(), "")
        section = json.dumps({"service": f"127.0.0.1:{port}", "timeout": 1.0})
        try:
            for _ in range(calls):
                try:
                    found.append((await service.score(ScoreCall("job", TWO, section, tokenizer))).scores)
                except QuatrainError as error:
                    found.append(error)
        finally:
            await service.close()
            await server.stop(None)

    asyncio.run(main())
    return found


BAD_ANSWERS: dict[str, tuple[bytes, type[QuatrainError], str]] = {
    "too few": (answer(1.0).SerializeToString(), InvalidInput, "returned 1 scores for 2 samples"),
    "too many": (answer(1.0, 1.0, 1.0).SerializeToString(), InvalidInput, "returned 3 scores for 2 samples"),
    "empty": (b"", InvalidInput, "returned 0 scores for 2 samples"),
    "garbage": (b"\xff\xfe<html>", InvalidInput, "something else than a ScoreResponse"),
    "logged garbage": (answer(1.0, 1.0, logged_json="{").SerializeToString(), InvalidInput, "logged_json"),
}


@pytest.mark.parametrize("name", BAD_ANSWERS)
def test_a_wrong_answer_of_another_service_is_a_typed_error(tmp_path: Path, name: str) -> None:
    body, kind, said = BAD_ANSWERS[name]

    async def handler(request: bytes, context: Any) -> bytes:
        return body

    (outcome,) = outside(tmp_path, handler)

    assert isinstance(outcome, kind), outcome
    assert said in outcome.message
    assert "remote reward service" in outcome.message


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (answer(float("nan"), 1.0), "term 'service' is nan"),
        (answer(float("inf"), 1.0), "term 'service' is inf"),
        (
            reward_pb2.ScoreResponse(scores=[reward_pb2.SampleScore(), *answer(1.0).scores]),
            "refused by the remote reward service",
        ),
        (
            answer(float("nan"), 1.0, terms=[common_pb2.NamedValue(name="mine", value=1.0)]),
            "the weighted sum is nan",
        ),
    ],
)
def test_an_unusable_score_of_another_service_refuses_its_sample(
    tmp_path: Path, value: reward_pb2.ScoreResponse, reason: str
) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        return value.SerializeToString()

    ((bad, good),) = outside(tmp_path, handler)  # type: ignore[misc]

    assert (bad.outcome, bad.score, bad.reason) == ("refused", 0.0, reason)
    assert good.outcome == "scored"


STATUSES = {
    grpc.StatusCode.UNAVAILABLE: Unavailable,
    grpc.StatusCode.RESOURCE_EXHAUSTED: Overloaded,
    grpc.StatusCode.INVALID_ARGUMENT: InvalidInput,
    grpc.StatusCode.INTERNAL: QuatrainError,
    grpc.StatusCode.UNKNOWN: QuatrainError,
    grpc.StatusCode.PERMISSION_DENIED: QuatrainError,
    grpc.StatusCode.UNAUTHENTICATED: QuatrainError,
    grpc.StatusCode.DATA_LOSS: QuatrainError,
}


@pytest.mark.parametrize("status", STATUSES, ids=lambda status: status.name)
def test_an_error_status_of_another_service_keeps_its_class(tmp_path: Path, status: grpc.StatusCode) -> None:
    async def handler(request: bytes, context: Any) -> bytes:
        await context.abort(status, "no")
        return b""

    (outcome,) = outside(tmp_path, handler)

    assert isinstance(outcome, STATUSES[status])


def test_another_service_that_is_slow_runs_into_the_deadline_and_one_that_flaps_is_asked_again(tmp_path: Path) -> None:
    asked = 0

    async def handler(request: bytes, context: Any) -> bytes:
        nonlocal asked
        asked += 1
        if asked == 1:
            await asyncio.sleep(30)
        if asked == 2:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
        return answer(1.0, 2.0).SerializeToString()

    slow, back = outside(tmp_path, handler, calls=2)

    assert isinstance(slow, DeadlineExpired)
    assert isinstance(back, tuple)
    assert [each.score for each in back] == [1.0, 2.0]
