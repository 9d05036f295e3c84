"""A channel whose certificates can change: new calls go over a new connection, running ones end on the old one."""

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio
from typing_extensions import override

from quatrain.rpc.certificates import ChannelTls, Pem

Options = list[tuple[str, int | str]]
POLL_SECONDS = 1.0
"""Seconds between two checks whether the calls on an old connection have ended."""


def open_transport(target: str, options: Options, tls: ChannelTls | None) -> grpc.aio.Channel:
    """Return a channel of gRPC, in plaintext without `tls`. It connects lazily."""
    if tls is None:
        return grpc.aio.insecure_channel(target, options=options)
    return RotatingChannel(target, options, tls)


class _Line:
    """One channel of gRPC with the certificates that it was opened with, and its running calls."""

    def __init__(self, target: str, options: Options, pem: Pem) -> None:
        self.pem = pem
        credentials = grpc.ssl_channel_credentials(pem.ca, pem.key, pem.chain)
        self.channel = grpc.aio.secure_channel(target, credentials, options=options)
        # Weak references without callbacks: with one, each call would be part of a cycle that only the collector frees.
        self.calls: weakref.WeakSet[Any] = weakref.WeakSet()

    async def close_when_idle(self) -> None:
        """Close the channel once its running calls have ended, streams included, however long they last."""
        while not all(call.done() for call in list(self.calls)):  # noqa: ASYNC110 - see `calls`
            await asyncio.sleep(POLL_SECONDS)
        await self.channel.close(None)


class RotatingChannel(grpc.aio.Channel):
    """A channel whose calls each go over a connection that was made with the newest certificates."""

    def __init__(self, target: str, options: Options, tls: ChannelTls) -> None:
        name = [("grpc.ssl_target_name_override", tls.server_name)] if tls.server_name else []
        self._target = target
        # Not shared with other channels of the process, whose certificates may be older.
        self._options = [*options, *name, ("grpc.use_local_subchannel_pool", 1)]
        self._certificates = tls.certificates
        self._line = _Line(target, self._options, tls.certificates.current())
        self._old: dict[_Line, asyncio.Task[None]] = {}

    def line(self) -> _Line:
        """Return the connection of the next call."""
        pem = self._certificates.current()
        if pem is not self._line.pem:
            old, self._line = self._line, _Line(self._target, self._options, pem)
            self._old[old] = asyncio.get_running_loop().create_task(old.close_when_idle())
            self._old[old].add_done_callback(lambda _: self._old.pop(old, None))
        return self._line

    async def __aenter__(self) -> "RotatingChannel":
        return self

    async def __aexit__(self, kind: Any, error: Any, trace: Any) -> None:
        await self.close(None)

    @override
    async def close(self, grace: float | None = None) -> None:
        """End all connections; running calls get `grace` seconds."""
        for line, closing in dict(self._old).items():
            closing.cancel()
            await line.channel.close(grace)
        await self._line.channel.close(grace)

    @override
    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """Ask the newest connection."""
        return self.line().channel.get_state(try_to_connect)

    @override
    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """Ask the newest connection."""
        await self.line().channel.wait_for_state_change(last_observed_state)

    @override
    async def channel_ready(self) -> None:
        """Ask the newest connection."""
        await self.line().channel.channel_ready()

    @override
    def unary_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.unary_unary(*args, **kwargs))

    @override
    def unary_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.unary_stream(*args, **kwargs))

    @override
    def stream_unary(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.stream_unary(*args, **kwargs))

    @override
    def stream_stream(self, *args: Any, **kwargs: Any) -> Any:
        return _Method(self, lambda channel: channel.stream_stream(*args, **kwargs))


class _Method:
    """A method of a stub. It is made again for each line, since gRPC binds it to its channel."""

    def __init__(self, owner: RotatingChannel, make: Callable[[grpc.aio.Channel], Any]) -> None:
        self._owner = owner
        self._make = make
        self._line: _Line | None = None
        self._bound: Any = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        line = self._owner.line()
        if line is not self._line:
            self._line, self._bound = line, self._make(line.channel)
        call = self._bound(*args, **kwargs)
        line.calls.add(call)
        return call
