"""A small client-side pool over the replicas of a stateless service.

Replicas join and leave while it runs: names are resolved and files of targets are read again every second, each address
has a channel of its own, and a call goes to the least busy address that serves. An address that fails is left out for a
back-off and its calls are tried on another one, within the caller's deadline. Only idempotent calls belong here.

    async with TargetPool("targets-file:/run/targets.json#generation", service="quatrain.v1.GenerationService") as pool:
        answer = await pool.call(lambda channel: GenerationServiceStub(channel).Generate, request, timeout=60.0)
"""

import asyncio
import contextlib
import time
import uuid
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self, TypeVar

import grpc
import grpc.aio

from quatrain.errors import Overloaded, QuatrainError, Unavailable
from quatrain.rpc.client.peers import Peer, PoolOptions
from quatrain.rpc.client.resolving import Resolver, resolve_targets, write_targets_file
from quatrain.rpc.errors import REQUEST_ID, from_rpc_error
from quatrain.telemetry.logging import bound_value, get_logger

__all__ = ["PoolOptions", "TargetPool", "resolve_targets", "write_targets_file"]

T = TypeVar("T")
MethodOf = Callable[[grpc.aio.Channel], Callable[..., Awaitable[T]]]

_log = get_logger(__name__)


class TargetPool:
    """A pool of the addresses of one target, as the module describes it. Use and close it in one event loop.

    Raises InvalidInput at once for a target of unknown form.
    """

    def __init__(self, target: str, *, service: str, options: PoolOptions | None = None) -> None:
        self.target = target
        self.service = service
        self._options = options or PoolOptions()
        self._resolver = Resolver(target)
        self._peers: dict[str, Peer] = {}
        self._changed = asyncio.Event()
        self._refreshing: asyncio.Task[None] | None = None
        self._next_refresh = 0.0
        self._resolve_error = ""
        self._closed = False
        self._waiting_allowed = True

    async def __aenter__(self) -> Self:
        """Return the pool itself."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the pool."""
        await self.close()

    async def close(self) -> None:
        """Cancel running calls and close all channels."""
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._refreshing
        for peer in self._peers.values():
            await peer.close()
        self._peers.clear()

    def wait_no_more(self) -> None:
        """Fail calls that no address takes at once, because the process stops. Running calls go on."""
        self._waiting_allowed = False
        self._changed.set()

    @property
    def usable(self) -> tuple[str, ...]:
        """Return the addresses that are handed out now."""
        return tuple(peer.address for peer in self._peers.values() if peer.usable)

    async def call(self, method_of: "MethodOf[T]", request: object, *, timeout: float) -> T:
        """Return the answer of a unary call, made within `timeout` seconds on as many addresses as that takes.

        Unavailable and overloaded addresses are left for others; every other error is the answer. Raises Unavailable
        that lists the addresses when none was reachable in time, Overloaded when all stayed full, DeadlineExpired when
        the last one did not answer, and the error that the service sent.
        """
        deadline = time.monotonic() + timeout
        metadata = ((REQUEST_ID, bound_value("request_id") or uuid.uuid4().hex),)
        last: QuatrainError | None = None
        while True:
            peer = await self._acquire(deadline, timeout, last)
            remaining = deadline - time.monotonic()
            peer.begin()
            try:
                answer = await method_of(peer.channel)(request, timeout=max(remaining, 0.001), metadata=metadata)
            except grpc.aio.AioRpcError as error:
                last = self._judge(peer, error)
                if not isinstance(last, Unavailable | Overloaded):
                    raise last from error
            else:
                peer.succeeded()
                return answer
            finally:
                peer.end()

    def _judge(self, peer: Peer, error: grpc.aio.AioRpcError) -> QuatrainError:
        mapped = from_rpc_error(error, service=self.service, target=peer.address)
        if isinstance(mapped, Unavailable):
            peer.eject(mapped)
        elif isinstance(mapped, Overloaded):
            peer.not_before = time.monotonic() + mapped.retry_after
        return mapped

    async def _acquire(self, deadline: float, timeout: float, last: QuatrainError | None) -> Peer:
        if self._closed:
            raise Unavailable(f"the pool of {self.service} at {self.target} is closed")
        while True:
            self._refresh_if_due()
            now = time.monotonic()
            ready = [peer for peer in self._peers.values() if peer.usable and peer.not_before <= now]
            if ready and now < deadline:
                return min(ready, key=lambda peer: (peer.in_flight, peer.last_used))
            if now >= deadline or not self._waiting_allowed:
                raise self._unreachable(timeout, last)
            self._changed.clear()
            with contextlib.suppress(TimeoutError):
                # Also wakes without a change: an overloaded address becomes free, a refresh becomes due.
                async with asyncio.timeout(min(deadline - now, 0.1)):
                    await self._changed.wait()

    def _unreachable(self, timeout: float, last: QuatrainError | None) -> QuatrainError:
        if isinstance(last, Overloaded):
            return last
        known = "; ".join(f"{peer.address}: {peer.last_error}" for peer in self._peers.values())
        why = known or self._resolve_error or "it lists no address"
        return Unavailable(f"{self.service} at {self.target}: no address answered within {timeout:g} s ({why})")

    def _refresh_if_due(self) -> None:
        now = time.monotonic()
        if now >= self._next_refresh and (self._refreshing is None or self._refreshing.done()):
            self._next_refresh = now + self._options.refresh
            self._refreshing = asyncio.create_task(self._refresh())

    async def _refresh(self) -> None:
        """Look the target up again. If that fails, the known addresses stay."""
        try:
            addresses = await self._resolver.addresses()
        except QuatrainError as error:
            if error.message != self._resolve_error:
                _log.warning("target cannot be looked up", service=self.service, error=error.message)
            self._resolve_error = error.message
            return
        self._resolve_error = ""
        for address in addresses:
            if address not in self._peers:
                self._peers[address] = Peer(address, self.service, self._options, self._changed.set)
        for address in set(self._peers) - set(addresses):
            await self._peers.pop(address).retire()
