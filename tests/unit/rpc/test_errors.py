"""The table of errors, there and back."""

from typing import Any

import grpc
import grpc.aio
import pytest

from quatrain import errors
from quatrain.rpc.errors import DETAILS_KEY, STATUS, code_of, from_rpc_error, internal_status, to_status

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type) and issubclass(kind, errors.QuatrainError) and kind is not errors.QuatrainError
]


def as_received(status: Any) -> grpc.aio.AioRpcError:
    code = next(code for code in grpc.StatusCode if code.value[0] == status.code)
    trailing = grpc.aio.Metadata((DETAILS_KEY, status.SerializeToString()))
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, status.message, None)


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_comes_back_as_itself(kind: type[errors.QuatrainError]) -> None:
    sent = kind("the reason")

    received = from_rpc_error(as_received(to_status(sent, "r")), service="learner", target="host:1")

    assert type(received) is kind
    assert received.message == "learner at host:1: the reason"
    assert received.code_reason == sent.code_reason


def test_codes_are_distinct_but_for_families() -> None:
    assert len(set(STATUS.values())) == len(STATUS)
    assert code_of(errors.Fenced("x")) is grpc.StatusCode.FAILED_PRECONDITION
    assert code_of(errors.InvalidSpec("x")) is grpc.StatusCode.INVALID_ARGUMENT


def test_details_survive() -> None:
    violations = [errors.FieldViolation("ppo.kl.coef", "must be 0 or more")]
    invalid = from_rpc_error(
        as_received(to_status(errors.InvalidSpec("x", violations), "r")), service="api", target="t"
    )
    full = from_rpc_error(
        as_received(to_status(errors.Overloaded("x", retry_after=1.25), "r")), service="a", target="t"
    )

    assert isinstance(invalid, errors.InvalidSpec)
    assert invalid.violations == tuple(violations)
    assert isinstance(full, errors.Overloaded)
    assert full.retry_after == 1.25


def test_a_reason_of_ones_own_keeps_the_class_of_its_code() -> None:
    sent = errors.WrongState("step 3 is next", reason="WRONG_STEP")

    received = from_rpc_error(as_received(to_status(sent, "r")), service="learner", target="t")

    assert type(received) is errors.WrongState
    assert received.code_reason == "WRONG_STEP"


def test_an_internal_failure_says_only_its_id() -> None:
    received = from_rpc_error(as_received(internal_status("r-9")), service="reward", target="t")

    assert type(received) is errors.QuatrainError
    assert "r-9" in received.message


@pytest.mark.parametrize(
    ("code", "details", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", errors.Unavailable),
        (grpc.StatusCode.CANCELLED, "", errors.Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "Deadline Exceeded", errors.DeadlineExpired),
        (grpc.StatusCode.UNAUTHENTICATED, "no token", errors.Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Received message larger than max (5 vs. 4)", errors.InvalidInput),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "too many streams", errors.Overloaded),
        (grpc.StatusCode.UNKNOWN, "?", errors.QuatrainError),
    ],
)
def test_statuses_that_grpc_makes_itself(code: grpc.StatusCode, details: str, kind: type[errors.QuatrainError]) -> None:
    error = grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details, None)

    assert type(from_rpc_error(error, service="s", target="t")) is kind


def test_damaged_details_leave_the_status_code() -> None:
    trailing = grpc.aio.Metadata((DETAILS_KEY, b"\xff\xff\xff"))
    error = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "no such job", None)

    assert type(from_rpc_error(error, service="s", target="t")) is errors.NotFound


def test_a_stream_that_broke_while_it_was_written_can_be_sent_again() -> None:
    none = grpc.aio.Metadata()
    error = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, "Internal error from Core", None)

    assert type(from_rpc_error(error, service="the API", target="host:1")) is errors.Unavailable
