"""Errors on the wire: one table from error class to gRPC status, and back.

A server sends `google.rpc.Status` with ErrorInfo (stable reason, domain `quatrain`), RequestInfo, and where they fit
BadRequest (field violations) and RetryInfo. A client gets the same class of error back, with the service and the
address in its message.
"""

import math
from collections.abc import Iterable, Iterator

import grpc
import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc import code_pb2, error_details_pb2, status_pb2  # type: ignore[import-untyped]

from quatrain import errors

DOMAIN = "quatrain"
DETAILS_KEY = "grpc-status-details-bin"
REQUEST_ID = "x-request-id"

STATUS: dict[type[errors.QuatrainError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.WrongState: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionRefused: grpc.StatusCode.PERMISSION_DENIED,
    errors.Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
    errors.DeadlineExpired: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Corrupt: grpc.StatusCode.DATA_LOSS,
    errors.RunFailed: grpc.StatusCode.ABORTED,
    errors.NotBuilt: grpc.StatusCode.UNIMPLEMENTED,
    errors.QuatrainError: grpc.StatusCode.INTERNAL,
}

# Codes that no class above sends but gRPC itself or a proxy may.
_RECEIVED: dict[grpc.StatusCode, type[errors.QuatrainError]] = {
    **{code: kind for kind, code in STATUS.items()},
    grpc.StatusCode.OUT_OF_RANGE: errors.InvalidInput,
    grpc.StatusCode.CANCELLED: errors.Unavailable,
}


def code_of(error: errors.QuatrainError) -> grpc.StatusCode:
    """Return the status of an error: that of the nearest class in `STATUS`."""
    return next(STATUS[kind] for kind in type(error).__mro__ if kind in STATUS)


def to_status(error: errors.QuatrainError, request_id: str) -> status_pb2.Status:
    """Return the error as `google.rpc.Status` with details."""
    details: list[AnyMessage] = []

    def add(message: Message) -> None:
        packed = AnyMessage()
        packed.Pack(message)
        details.append(packed)

    add(error_details_pb2.ErrorInfo(reason=error.code_reason, domain=DOMAIN))
    add(error_details_pb2.RequestInfo(request_id=request_id))
    if isinstance(error, errors.InvalidInput) and error.violations:
        add(
            error_details_pb2.BadRequest(
                field_violations=[
                    error_details_pb2.BadRequest.FieldViolation(field=v.field, description=v.description)
                    for v in error.violations
                ]
            )
        )
    if isinstance(error, errors.Overloaded):
        add(error_details_pb2.RetryInfo(retry_delay=_duration(error.retry_after)))
    number: int = code_of(error).value[0]
    return status_pb2.Status(code=number, message=error.message, details=details)


def internal_status(request_id: str) -> status_pb2.Status:
    """Return what a caller sees of an unforeseen failure: only the id under which the server logged it."""
    request_info = AnyMessage()
    request_info.Pack(error_details_pb2.RequestInfo(request_id=request_id))
    return status_pb2.Status(
        code=code_pb2.INTERNAL,
        message=f"internal error; the server's log has the details under request id {request_id}",
        details=[request_info],
    )


BROKEN_STREAM = "Internal error from Core"
"""gRPC's words on the caller's side when the connection breaks, or the server ends the call, during an upload."""


def from_rpc_error(error: grpc.aio.AioRpcError, *, service: str, target: str) -> errors.QuatrainError:
    """Return the error that a failed call stands for; its message names service and address.

    Unknown reasons fall back to the class of the status code, and codes without a class to QuatrainError.
    """
    details = _Details.of(error)
    kind = _KINDS_BY_REASON.get(details.reason) or _RECEIVED.get(error.code(), errors.QuatrainError)
    text = error.details() or error.code().name
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and "larger than max" in text:
        kind = errors.InvalidInput  # gRPC's own refusal of a message: it will not fit later either
    if error.code() is grpc.StatusCode.INTERNAL and text == BROKEN_STREAM:
        kind = errors.Unavailable
    message = f"{service} at {target}: {_explained(error.code(), text)}"
    if issubclass(kind, errors.InvalidInput):
        return kind(message, details.violations, reason=details.reason or None)
    if issubclass(kind, errors.Overloaded):
        return kind(message, retry_after=details.retry_after or 0.5)
    return kind(message, reason=details.reason or None)


def _explained(code: grpc.StatusCode, text: str) -> str:
    if code is grpc.StatusCode.DEADLINE_EXCEEDED and text.lower().startswith("deadline exceeded"):
        return "no answer within the deadline"
    if "CERTIFICATE_VERIFY_FAILED" in text or "Verification Check failed" in text:
        return "its certificate is not one of the trusted authorities', has expired, or is not made out to this name"
    if code is grpc.StatusCode.UNAVAILABLE and "WRONG_VERSION_NUMBER" in text:
        return "it does not speak TLS"
    unreachable = "ailed to connect" in text or "connections to all backends failing" in text
    if code is grpc.StatusCode.UNAVAILABLE and unreachable and text.endswith("Socket closed"):
        return "ends each connection at once: it is going down, or wants TLS or another certificate"
    if code is grpc.StatusCode.UNAVAILABLE and unreachable:
        return f"cannot be reached ({text.rpartition(': ')[2].lower()})"
    return text


def _duration(seconds: float) -> Duration:
    whole = math.floor(seconds)
    return Duration(seconds=whole, nanos=int((seconds - whole) * 1e9))


def _tree(kind: type[errors.QuatrainError]) -> Iterator[type[errors.QuatrainError]]:
    yield kind
    for child in kind.__subclasses__():
        yield from _tree(child)


_KINDS_BY_REASON = {kind.reason: kind for kind in _tree(errors.QuatrainError) if kind.__module__ == errors.__name__}


class _Details:
    """The details of a status that we read."""

    def __init__(self) -> None:
        self.reason = ""
        self.violations: tuple[errors.FieldViolation, ...] = ()
        self.retry_after: float | None = None

    @classmethod
    def of(cls, error: grpc.aio.AioRpcError) -> "_Details":
        found = cls()
        status = _status_of(error)
        for packed in status.details if status is not None else ():
            found._take(packed)
        return found

    def _take(self, packed: AnyMessage) -> None:
        info = error_details_pb2.ErrorInfo()
        bad_request = error_details_pb2.BadRequest()
        retry = error_details_pb2.RetryInfo()
        if packed.Unpack(info) and info.domain == DOMAIN:
            self.reason = info.reason
        elif packed.Unpack(bad_request):
            self.violations = tuple(errors.FieldViolation(v.field, v.description) for v in bad_request.field_violations)
        elif packed.Unpack(retry):
            self.retry_after = retry.retry_delay.seconds + retry.retry_delay.nanos / 1e9


def _status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status | None:
    metadata: Iterable[tuple[str, str | bytes]] = error.trailing_metadata() or ()  # type: ignore[assignment]
    for key, value in metadata:
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:  # a proxy cut it; code and message are still valid
                return None
    return None
