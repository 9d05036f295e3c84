"""Peers that take a connection and then say nothing, or begin an answer and stop in the middle."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio


@contextlib.contextmanager
def black_hole() -> Iterator[str]:
    """An address where connections are made, by the kernel, and nobody ever reads or writes."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@contextlib.contextmanager
def stalling(beginning: bytes) -> Iterator[str]:
    """An address whose every connection gets the first bytes of an answer and no more."""
    kept: list[socket.socket] = []

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                kept.append(connection)
                connection.recv(2**16)
                connection.sendall(beginning)

    listener = socket.create_server(("127.0.0.1", 0), backlog=128)
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10.0)
        for connection in kept:
            connection.close()


class _Stalls(grpc.GenericRpcHandler):  # type: ignore[type-arg]  # not generic at run time
    """Answers every call with headers, with `first` if it is one of those methods, and then stands still."""

    def __init__(self, first: dict[str, bytes]) -> None:
        self._first = first

    def service(self, details: grpc.HandlerCallDetails) -> "grpc.RpcMethodHandler[Any, Any] | None":
        if details.method.startswith("/grpc.health"):
            return None  # knows no health service: taken for one that serves
        first = self._first.get(details.method.rpartition("/")[2])

        async def stall(_: Any, context: Any) -> None:
            await context.send_initial_metadata(())
            if first is not None:
                await context.write(first)
            await asyncio.Event().wait()

        return grpc.stream_stream_rpc_method_handler(stall)


@contextlib.asynccontextmanager
async def stalling_rpc(first: dict[str, bytes]) -> AsyncIterator[str]:
    """A gRPC server that is there, and answers nothing to its end."""
    server = grpc.aio.server()
    server.add_generic_rpc_handlers([_Stalls(first)])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(None)
