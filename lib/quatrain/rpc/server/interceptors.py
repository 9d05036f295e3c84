"""The common frame of every call on the server: access, deadline, request id, error mapping, metrics, and refusal while
it is not ready.

Health passes untouched, and reflection does once its caller is known. Everything else, unary or streaming, goes through
`CallGuard`. A call without the needed token or role is refused before its request is read.
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from google.rpc import status_pb2  # type: ignore[import-untyped]

from quatrain.errors import DeadlineExpired, InvalidInput, NotBuilt, Overloaded, QuatrainError, Unavailable
from quatrain.rpc.errors import DETAILS_KEY, REQUEST_ID, code_of, internal_status, to_status
from quatrain.rpc.server.access import LOCAL, Access, set_caller
from quatrain.telemetry import metrics
from quatrain.telemetry.logging import bind, get_logger

PUBLIC_DEADLINE_SECONDS = 30.0
HEALTH = "/grpc.health."
REFLECTION = "/grpc.reflection."
_CODES: dict[int, grpc.StatusCode] = {code.value[0]: code for code in grpc.StatusCode}

_STARTED = metrics.gauge("rpc_in_flight", "Calls in flight", ("service", "method"))
_HANDLED = metrics.counter("rpc_handled", "Calls by status", ("service", "method", "code"))
_SECONDS = metrics.histogram("rpc_seconds", "Seconds that calls took", ("service", "method"))

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
_log = get_logger(__name__)


@dataclass
class Gate:
    """A switch for all calls; `closed` says why none are taken ("it is starting", "it is stopping")."""

    closed: str | None = None


class CallGuard(grpc.aio.ServerInterceptor):  # type: ignore[type-arg]  # not generic at run time
    """The one interceptor: the order of its checks is fixed, and every part sees the final status."""

    def __init__(
        self, name: str, gate: Gate, *, public: bool, services: Sequence[str], access: Access | None = None
    ) -> None:
        self._name = name
        self._gate = gate
        self._public = public
        self._services = services
        self._access = access

    async def intercept_service(
        self,
        continuation: "Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any]]]",
        handler_call_details: grpc.HandlerCallDetails,
    ) -> "grpc.RpcMethodHandler[Any, Any]":
        """Wrap the handler of the method, or make one that says what is served here."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        if method.startswith(HEALTH):
            return handler
        reflected = method.startswith(REFLECTION)
        try:
            self._admit(handler_call_details, authorize=handler is not None and not reflected)
            if handler is None:
                served = ", ".join(sorted(self._services)) or "nothing yet"
                raise NotBuilt(f"{self._name} does not serve {method}; it serves {served}")
        except QuatrainError as error:
            return grpc.stream_stream_rpc_method_handler(self._refusal(method, error, known=handler is not None))
        if reflected:
            return handler
        # Requests are parsed by us, so that bytes that are no message are the caller's error like any other.
        serializer = handler.response_serializer
        if handler.request_streaming and handler.response_streaming:
            return grpc.stream_stream_rpc_method_handler(
                self._streaming(method, handler.stream_stream, _parser(handler)), None, serializer
            )
        if handler.response_streaming:
            return grpc.unary_stream_rpc_method_handler(
                self._streaming(method, handler.unary_stream, _parser(handler)), None, serializer
            )
        if handler.request_streaming:
            return grpc.stream_unary_rpc_method_handler(
                self._unary(method, handler.stream_unary, _parser(handler), unary=False), None, serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            self._unary(method, handler.unary_unary, _parser(handler), unary=True), None, serializer
        )

    def _unary(self, method: str, inner: Any, parse: Any, *, unary: bool) -> Any:
        async def call(request: Any, context: Context) -> Any:
            async with self._around(method, context):
                if not unary:
                    return await inner(self._checked(parse(request), context), context)
                limit = self._limit(method, context)
                try:
                    async with asyncio.timeout(limit) as clock:
                        return await inner(parse(request), context)
                except TimeoutError as error:
                    if not clock.expired():
                        raise
                    raise DeadlineExpired(
                        f"{method} took longer than {limit:g} s, set for calls without one"
                    ) from error

        return call

    def _streaming(self, method: str, inner: Any, parse: Any) -> Any:
        async def call(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context):
                result = inner(parse(request), context)
                if not hasattr(result, "__aiter__"):  # a handler in the style of `await context.write(...)`
                    await result
                    return
                async with contextlib.aclosing(result) as messages:
                    async for message in messages:
                        self._check_again(context)
                        yield message

        return call

    def _check_again(self, context: Context) -> None:
        """Check the token at each message of a long stream. Raises Unauthenticated for a revoked token."""
        if self._access is not None:
            self._access.authenticate(context.invocation_metadata() or ())

    async def _checked(self, requests: AsyncIterator[Any], context: Context) -> AsyncIterator[Any]:
        async for request in requests:
            self._check_again(context)
            yield request

    def _refusal(self, method: str, error: QuatrainError, *, known: bool) -> Any:
        """Return a handler that raises `error` without having read a request."""

        async def call(_requests: Any, context: Context) -> AsyncIterator[Any]:
            async with self._around(method, context, known=known):
                raise error
            yield b""  # makes this a generator

        return call

    def _admit(self, details: grpc.HandlerCallDetails, *, authorize: bool) -> None:
        """Make the caller known to the servicer, in the context of this call.

        Raises Unauthenticated, PermissionRefused.
        """
        if self._access is None:
            set_caller(LOCAL)
            return
        principal = self._access.authenticate(details.invocation_metadata or ())
        if authorize:
            self._access.authorize(principal, details.method)
        set_caller(principal)
        bind(caller=principal.name)

    def _limit(self, method: str, context: Context) -> float | None:
        """Return the seconds for a unary call, None if the caller set some. Raises InvalidInput if they had to."""
        if context.time_remaining() is not None:
            return None
        if self._public:
            return PUBLIC_DEADLINE_SECONDS
        raise InvalidInput(f"{method} needs a deadline; set a timeout on the call", reason="DEADLINE_REQUIRED")

    @contextlib.asynccontextmanager
    async def _around(self, method: str, context: Context, *, known: bool = True) -> AsyncIterator[None]:
        request_id = _request_id(context)
        context.set_trailing_metadata(((REQUEST_ID, request_id),))
        outcome = _Outcome()
        # Each call has a context of its own, so nothing is unbound afterwards; a stream that is left half-read may be
        # closed from another context, where unbinding would fail.
        bind(request_id=request_id)
        with _measured(method if known else "/unknown/unknown", outcome):
            try:
                if self._gate.closed is not None:
                    raise Unavailable(f"{self._name} takes no calls: {self._gate.closed}")
                yield
                return
            except grpc.aio.AbortError:
                outcome.code = str(context.code())
                raise
            except QuatrainError as error:
                # A full queue is normal under load; everything else should be found in the log.
                say = _log.debug if isinstance(error, Overloaded) else _log.info
                say("call refused", method=method, code=code_of(error).name, error=error.message)
                status = to_status(error, request_id)
            except NotImplementedError:
                missing = NotBuilt(f"{method} is in the contract, but this version does not have it yet")
                status = to_status(missing, request_id)
            except Exception:  # noqa: BLE001 - only here: the unforeseen is logged, and not shown to the caller
                _log.exception("call failed", method=method)
                status = internal_status(request_id)
            outcome.code = _CODES[status.code].name
            await _abort(context, status, request_id)


def _parser(handler: "grpc.RpcMethodHandler[Any, Any]") -> Callable[[Any], Any]:
    """Return the function from the bytes of a request, or a stream of them, to messages. It raises InvalidInput."""
    deserialize: Any = handler.request_deserializer

    def one(data: bytes) -> Any:
        try:
            return deserialize(data)
        except DecodeError as error:
            raise InvalidInput("the request is no message of the kind that this method takes") from error

    async def many(stream: AsyncIterator[bytes]) -> AsyncIterator[Any]:
        async for data in stream:
            yield one(data)

    if deserialize is None:
        return lambda request: request
    return many if handler.request_streaming else one


@dataclass
class _Outcome:
    code: str = "CANCELLED"


@contextlib.contextmanager
def _measured(path: str, outcome: _Outcome) -> Iterator[None]:
    _, service, method = path.split("/", 2)
    started = time.monotonic()
    _STARTED.labels(service, method).inc()
    try:
        yield
        outcome.code = "OK"
    finally:
        _STARTED.labels(service, method).dec()
        _HANDLED.labels(service, method, outcome.code).inc()
        _SECONDS.labels(service, method).observe(time.monotonic() - started)


async def _abort(context: Context, status: status_pb2.Status, request_id: str) -> None:
    """End the call. Raises AbortError, as gRPC wants it."""
    # HTTP/2 metadata is limited to some KiB: a long list of violations travels in the message's first part only.
    trailing = ((DETAILS_KEY, _bounded(status).SerializeToString()), (REQUEST_ID, request_id))
    await context.abort(_CODES[status.code], status.message[:2000], trailing)


def _bounded(status: status_pb2.Status, limit: int = 6000) -> status_pb2.Status:
    if status.ByteSize() <= limit:
        return status
    kept = status_pb2.Status(code=status.code, message=status.message[:2000])
    for detail in status.details:
        if kept.ByteSize() + detail.ByteSize() + 8 <= limit:
            kept.details.append(detail)
    return kept


def _request_id(context: Context) -> str:
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID and isinstance(value, str) and 0 < len(value) <= 128:
            return value
    return uuid.uuid4().hex
