"""Long calls: the server sends heartbeats, the client notices when they stop."""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, cast

import grpc.aio

from quatrain.errors import QuatrainError, Unavailable
from quatrain.rpc.errors import from_rpc_error

T = TypeVar("T")
HEARTBEAT_SECONDS = 5.0
LOST_AFTER_SECONDS = 30.0
_END: object = grpc.aio.EOF  # type: ignore[attr-defined]


@dataclass(frozen=True)
class Beat:
    """A heartbeat: what is being done, and for how many seconds."""

    phase: str
    elapsed: float


@dataclass(frozen=True)
class Done(Generic[T]):
    """The result, always last."""

    value: T


async def with_heartbeats(
    future: "asyncio.Future[T]",
    phase: str | Callable[[], str],
    *,
    every: float | None = None,
    alive: Callable[[], None] = lambda: None,
) -> AsyncGenerator[Beat | Done[T], None]:
    """Yield a Beat at once and then each `every` seconds (5) until `future` is done, then Done with its result.

    An event loop beats whether or not the work makes progress, so `alive` checks that before each beat and raises if
    not. The future goes on when the stream ends early, so that another call can attach to it. Raises what the future
    raises, and Unavailable when it is cancelled: the process gave the work up.
    """
    started = time.monotonic()
    while not future.done():
        alive()
        yield Beat(phase if isinstance(phase, str) else phase(), time.monotonic() - started)
        await asyncio.wait({future}, timeout=HEARTBEAT_SECONDS if every is None else every)
    if future.cancelled():
        raise Unavailable("the work was given up: the process is stopping")
    yield Done(future.result())


async def watched(
    stream: "grpc.aio.UnaryStreamCall[Any, T]",
    lost_after: float = LOST_AFTER_SECONDS,
    *,
    service: str = "the service",
    target: str = "its address",
) -> AsyncGenerator[T, None]:
    """Return the messages of a stream. Raises Unavailable, and cancels it, when none comes for `lost_after` seconds."""
    try:
        while True:
            async with asyncio.timeout(lost_after):
                message = await stream.read()
            if message is _END:
                return
            yield cast(T, message)
    except TimeoutError as error:
        raise Unavailable(
            f"{service} at {target}: no heartbeat for {lost_after:g} s; it hangs or is cut off"
        ) from error
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service=service, target=target) from error
    finally:
        stream.cancel()


async def result_of(
    stream: "grpc.aio.UnaryStreamCall[Any, T]",
    lost_after: float = LOST_AFTER_SECONDS,
    *,
    service: str = "the service",
    target: str = "its address",
) -> T:
    """Return the last message of a stream of `oneof kind { Heartbeat heartbeat; ... }` messages, which is the result.

    Raises Unavailable when heartbeats stop, QuatrainError when the stream ends without a result, and the mapped error
    when the call fails.
    """
    result: T | None = None
    async for message in watched(stream, lost_after, service=service, target=target):
        if message.WhichOneof("kind") != "heartbeat":  # type: ignore[attr-defined]
            result = message
    if result is None:
        raise QuatrainError(f"{service} at {target}: the stream ended without a result")
    return result
