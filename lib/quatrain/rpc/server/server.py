"""Bootstrap of every gRPC process: bind, warm up, serve, drain.

`run_server` is the whole life of a server: it binds, answers health with NOT_SERVING while `on_ready` warms up, then
serves and writes the port file, and on SIGTERM or SIGINT refuses new calls, lets `on_drain` hand work back, gives calls
in flight their grace and stops.
"""

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from quatrain.concurrency import cancel_and_wait
from quatrain.config import ProcessConfig, ServerConfig, ready_folder
from quatrain.errors import Unavailable
from quatrain.process.files import write_whole
from quatrain.rpc.addresses import MIB
from quatrain.rpc.certificates import ServerTls
from quatrain.rpc.server.access import Access, Role
from quatrain.rpc.server.interceptors import CallGuard, Gate
from quatrain.rpc.server.security import access_of, check_exposure, server_tls
from quatrain.telemetry.logging import get_logger
from quatrain.telemetry.metrics import MetricsServer, start_metrics_server

Register = Callable[[grpc.aio.Server], list[str]]
Hook = Callable[[], Awaitable[None]]

# Clients ping every 10 to 60 s while calls run; gRPC's default of five minutes would answer that with GOAWAY.
MIN_PING_INTERVAL_MS = 9_000

_SERVING = health_pb2.HealthCheckResponse.SERVING
_NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
_log = get_logger(__name__)


async def run_server(
    config: ProcessConfig,
    name: str,
    register: Register,
    *,
    on_ready: Hook | None = None,
    on_drain: Hook | None = None,
    roles: Mapping[str, Role] | None = None,
    stop: asyncio.Event | None = None,
    working: "asyncio.Task[Any] | None" = None,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`.

    `register` adds the servicers and returns their full names (`quatrain.v1.JobService`). `on_ready` warms up (loads,
    probes) while health says NOT_SERVING; what it raises ends the server. `on_drain` hands work back after new calls
    are refused. `working` is the process's own loop: when it ends, the server ends, with its error. `roles` makes the
    server public: the lowest role of each method. Public servers give unary calls without a deadline 30 s; others
    refuse them. Streams are exempt. Raises Unavailable if the port is taken, InvalidInput when others could reach the
    server and nothing protects it, or tokens or certificates are wrong.
    """
    stopping = stop or asyncio.Event()
    public = roles is not None
    check_exposure(config, name, public=public)
    tls = server_tls(config, public=public)
    access = None if roles is None else access_of(config, roles)
    server = RpcServer(config.server, name, register, public=public, tls=tls, access=access)
    try:
        await server.start()
        with _stopped_by_signals(stopping):
            if on_ready is not None and not await _unless_stopped(on_ready, stopping):
                return
            await server.serve()
            await _first_of(stopping, working)
            _log.info("draining", name=name)
            await server.refuse()
            if on_drain is not None:
                await _bounded(on_drain, config.server.shutdown_grace)
        if working is not None and working.done():
            await working
    finally:
        await server.stop()


@dataclass(frozen=True)
class Ports:
    """Ports that a server is bound to."""

    port: int
    health_port: int | None
    metrics_port: int | None


class RpcServer:
    """A gRPC server with health, reflection and the call guard; `run_server` is the usual way to use it."""

    def __init__(
        self,
        config: ServerConfig,
        name: str,
        register: Register,
        *,
        public: bool = False,
        tls: ServerTls | None = None,
        access: Access | None = None,
    ) -> None:
        self._config = config
        self._tls = tls
        self._name = name
        self._gate = Gate("it is starting")
        self._services: list[str] = []
        guard = CallGuard(name, self._gate, public=public, services=self._services, access=access)
        self._health = health.aio.HealthServicer()  # type: ignore[attr-defined]
        self._server = grpc.aio.server(interceptors=[guard], options=server_options(config))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        self._services += register(self._server)
        listed = [*self._services, health.SERVICE_NAME, reflection.SERVICE_NAME]
        reflection.enable_server_reflection(listed, self._server)
        self._probe_server: grpc.aio.Server | None = None
        self._metrics: MetricsServer | None = None
        self.ports = Ports(0, None, None)

    async def start(self) -> None:
        """Bind all ports and answer health with NOT_SERVING. Raises Unavailable if a port is taken."""
        logging.getLogger("grpc._cython.cygrpc").addFilter(_is_news)
        await self._set_health(_NOT_SERVING)
        port = self._bind(self._server, "port", self._config.port, self._tls)
        health_port = None
        if self._config.health_port is not None:
            self._probe_server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
            health_pb2_grpc.add_HealthServicer_to_server(self._health, self._probe_server)
            health_port = self._bind(self._probe_server, "health_port", self._config.health_port)
            await self._probe_server.start()
        if self._config.metrics_port is not None:
            self._metrics = self._start_metrics(self._config.metrics_port)
        self.ports = Ports(port, health_port, self._metrics.port if self._metrics else None)
        await self._server.start()

    async def serve(self) -> None:
        """Take calls, say SERVING, write the port file."""
        self._gate.closed = None
        await self._set_health(_SERVING)
        if self._config.port_file is not None:
            write_port_file(self._config.port_file, self.ports)
        _log.info("serving", name=self._name, host=self._config.host, port=self.ports.port, tls=self._tls is not None)

    async def refuse(self) -> None:
        """Say NOT_SERVING and refuse new calls with UNAVAILABLE; running calls go on."""
        self._gate.closed = "it is stopping"
        await self._set_health(_NOT_SERVING)

    async def stop(self) -> None:
        """Stop: running calls get the configured grace, then they are cancelled."""
        await self.refuse()
        await self._server.stop(self._config.shutdown_grace)
        if self._probe_server is not None:
            await self._probe_server.stop(None)
        if self._metrics is not None:
            await asyncio.to_thread(self._metrics.close)
        if self._config.port_file is not None:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError):  # It was never written.
                self._config.port_file.unlink()

    async def _set_health(self, status: "health_pb2.HealthCheckResponse.ServingStatus.ValueType") -> None:
        for service in ("", *self._services):
            await self._health.set(service, status)

    def _bind(self, server: grpc.aio.Server, setting: str, port: int, tls: ServerTls | None = None) -> int:
        address = f"{self._config.host}:{port}"
        try:
            if tls is not None:
                return server.add_secure_port(address, tls.credentials())
            return server.add_insecure_port(address)
        except RuntimeError as error:
            raise Unavailable(
                f"{self._name} cannot bind {address}: the port is taken or the address is not ours; choose others with "
                f"server.{setting} (0: a free one) and server.host"
            ) from error

    def _start_metrics(self, port: int) -> MetricsServer:
        try:
            return start_metrics_server(self._config.host, port)
        except OSError as error:
            raise Unavailable(
                f"{self._name} cannot serve metrics on {self._config.host}:{port}: {error.strerror}; choose another "
                "server.metrics_port (0: a free one), or none"
            ) from error


def server_options(config: ServerConfig) -> list[tuple[str, int]]:
    """Return the options of every server."""
    return [
        ("grpc.max_receive_message_length", config.max_message_mib * MIB),
        ("grpc.max_send_message_length", config.max_message_mib * MIB),
        # Two processes on one port would share calls silently.
        ("grpc.so_reuseport", 0),
        # A connection is asked to go after this age (gRPC adds 10 % jitter), so clients look names up again and meet
        # new replicas. The grace after that is unlimited, its default: a stream of hours is never cut by it.
        ("grpc.max_connection_age_ms", int(config.max_connection_age * 1000)),
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
        ("grpc.http2.ping_timeout_ms", 20_000),
        ("grpc.http2.min_ping_interval_without_data_ms", MIN_PING_INTERVAL_MS),
    ]


def write_port_file(path: Path, ports: Ports) -> None:
    """Write the ports as JSON, whole or not at all. Raises InvalidInput when it cannot be written."""
    ready_folder(path.parent, "server.port_file")
    document = {"port": ports.port, "health_port": ports.health_port, "metrics_port": ports.metrics_port}
    write_whole(path, json.dumps(document))


def _is_news(record: logging.LogRecord) -> bool:
    """Return False for the traceback that gRPC logs whenever a client leaves a stream that is being written."""
    return "ExecuteBatchError raised in core by servicer method" not in record.msg


async def _unless_stopped(hook: Hook, stopping: asyncio.Event) -> bool:
    """Run the hook; False, with the hook cancelled, if stopping comes first."""
    work = asyncio.ensure_future(hook())
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            return False
        await work
        return True
    finally:
        await cancel_and_wait(work, stopped)


async def _first_of(stopping: asyncio.Event, working: "asyncio.Task[Any] | None") -> None:
    stopped = asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({stopped} if working is None else {stopped, working}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stopped.cancel()


async def _bounded(hook: Hook, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds) as clock:
            await hook()
    except TimeoutError:
        if not clock.expired():
            raise
        _log.warning("work was not handed back in time", seconds=seconds)


@contextlib.contextmanager
def _stopped_by_signals(stopping: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set the event; a second one has its default effect, so that it always ends the process."""
    loop = asyncio.get_running_loop()
    taken: list[signal.Signals] = []

    def on_signal() -> None:
        stopping.set()
        while taken:
            loop.remove_signal_handler(taken.pop())

    for number in (signal.SIGTERM, signal.SIGINT):
        # Only the main thread may take signals; a server inside a test's thread is stopped by its event.
        with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
            loop.add_signal_handler(number, on_signal)
            taken.append(number)
    try:
        yield
    finally:
        while taken:
            loop.remove_signal_handler(taken.pop())
