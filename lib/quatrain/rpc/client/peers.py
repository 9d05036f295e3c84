"""One address of a pool: its channel, its load, whether it can be called, and the task that reconnects it."""

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quatrain.backoff import Backoff
from quatrain.errors import QuatrainError, Unavailable
from quatrain.rpc.certificates import ChannelTls
from quatrain.rpc.client.channel import channel_options, grpc_target
from quatrain.rpc.client.rotation import open_transport
from quatrain.rpc.errors import from_rpc_error
from quatrain.telemetry.logging import get_logger

BACKOFF = Backoff(first=0.2, longest=2.0, jitter=0.2)
_log = get_logger(__name__)


@dataclass(frozen=True)
class PoolOptions:
    """The settings of a pool; times are in seconds."""

    refresh: float = 1.0  # between two look-ups of the target
    probe_timeout: float = 3.0  # that an address gets to connect and say that it serves
    backoff: Backoff = BACKOFF  # before an address that failed is probed again
    # A replica that hangs in a call is noticed within their sum, 30 s, as for streams. Quatrain's servers allow a ping
    # every 9 s; others may end connections over more than one in five minutes.
    keepalive: float = 20.0  # between pings while calls run
    keepalive_timeout: float = 10.0  # that a ping's answer may take
    tls: ChannelTls | None = None  # None: plaintext


class Peer:
    """An address. It is handed out only after its health service has said that it serves."""

    def __init__(self, address: str, service: str, options: PoolOptions, on_change: Callable[[], None]) -> None:
        self.address = address
        self.usable = False
        self.in_flight = 0
        # Addresses that were never used come first, in random order, so that many clients do not begin with the same.
        self.last_used = -random.random()
        self.not_before = 0.0
        self.last_error = "not tried yet"
        self._service = service
        self._options = options
        self._on_change = on_change
        self._failures = 0
        self._retired = False
        self._closing: asyncio.Task[None] | None = None
        # The pool itself retries on another address, so the channel must not; and it must notice a restart quickly.
        changed = {
            "grpc.initial_reconnect_backoff_ms": 100,
            "grpc.max_reconnect_backoff_ms": 1_000,
            "grpc.keepalive_time_ms": int(options.keepalive * 1000),
            "grpc.keepalive_timeout_ms": int(options.keepalive_timeout * 1000),
            "grpc.http2.ping_timeout_ms": int(options.keepalive_timeout * 1000),
            "grpc.http2.max_pings_without_data": 0,  # no limit: the client is silent while a long call runs
            "grpc.use_local_subchannel_pool": 1,
        }
        merged = dict(channel_options()) | changed
        self.channel = open_transport(grpc_target(address), list(merged.items()), options.tls)
        self._probing: asyncio.Task[None] | None = asyncio.create_task(self._probe_until_usable(0.0))

    def eject(self, error: QuatrainError) -> None:
        """Take the address out until it answers a health check, at the earliest after a back-off."""
        if self.usable:
            _log.warning("address left out", service=self._service, address=self.address, error=error.message)
        self.usable = False
        self.last_error = error.message
        self._failures += 1
        if not self._retired and (self._probing is None or self._probing.done()):
            self._probing = asyncio.create_task(self._probe_until_usable(self._options.backoff.pause(self._failures)))

    def succeeded(self) -> None:
        """Note that a call succeeded: the next failure starts with the shortest back-off."""
        self._failures = 0

    def begin(self) -> None:
        """Note that a call begins."""
        self.in_flight += 1
        self.last_used = time.monotonic()

    def end(self) -> None:
        """Note that a call has ended."""
        self.in_flight -= 1
        if self._retired and not self.in_flight:
            self._closing = asyncio.create_task(self.channel.close(None))

    async def retire(self) -> None:
        """Let running calls finish, then close the channel: the address is no longer in the target."""
        self._retired = True
        self.usable = False
        await self._stop_probing()
        if not self.in_flight:
            await self.channel.close(None)

    async def close(self) -> None:
        """Cancel everything."""
        self._retired = True
        self.usable = False
        await self._stop_probing()
        await self.channel.close(None)
        if self._closing is not None:
            await self._closing

    async def _stop_probing(self) -> None:
        if self._probing is not None:
            self._probing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._probing

    async def _probe_until_usable(self, delay: float) -> None:
        while True:
            await asyncio.sleep(delay)
            try:
                await self._probe()
            except Unavailable as error:
                self.last_error = error.message
                self._failures += 1
                delay = self._options.backoff.pause(self._failures)
            else:
                self.usable = True
                _log.info("address serves", service=self._service, address=self.address)
                self._on_change()
                return

    async def _probe(self) -> None:
        """Raise Unavailable unless the address is connected and says that it serves, or knows no health service."""
        check = health_pb2_grpc.HealthStub(self.channel).Check
        request = health_pb2.HealthCheckRequest(service=self._service)
        try:
            answer = await check(request, timeout=self._options.probe_timeout)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNIMPLEMENTED:
                return
            if error.code() is grpc.StatusCode.NOT_FOUND:
                raise Unavailable(f"{self.address} is another server: it does not know {self._service}") from error
            raise Unavailable(from_rpc_error(error, service=self._service, target=self.address).message) from error
        if answer.status != health_pb2.HealthCheckResponse.SERVING:
            raise Unavailable(f"{self._service} at {self.address}: not serving (it starts or stops)")
