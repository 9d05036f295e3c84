"""TLS in front of a real server that has none built in, as a managed Redis or a sidecar puts it there."""

import asyncio
import ssl
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from quatrain.concurrency import run_until_first_exit
from quatrain.rpc.certificates import CertificateFiles

DEADLINE = 10.0
CHUNK = 64 * 1024

T = TypeVar("T")


@contextmanager
def tls_front(port: int, tls: CertificateFiles) -> Iterator[int]:
    """A loopback port that speaks TLS, asks clients for no certificate and passes all on to a loopback port."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(tls.cert), str(tls.key))
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Coroutine[None, None, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, loop).result(DEADLINE)

    front = _Front(port, context)
    try:
        yield run(front.open())
    finally:
        run(front.close())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(DEADLINE)
        loop.close()


class _Front:
    def __init__(self, upstream: int, context: ssl.SSLContext) -> None:
        self._upstream = upstream
        self._context = context
        self._connections: set[asyncio.Task[None]] = set()

    async def open(self) -> int:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def close(self) -> None:
        self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Passes on what either side says, until one of them ends."""
        writers = [writer]
        opening = asyncio.ensure_future(asyncio.open_connection("127.0.0.1", self._upstream))
        try:
            there, back = await asyncio.shield(opening)
            writers.append(back)
            with suppress(OSError):
                await run_until_first_exit(_pass(reader, back), _pass(there, writer))
        finally:
            if len(writers) == 1:  # Cancelled, or refused: what is opened after all has to be closed.
                with suppress(OSError):
                    writers.append((await opening)[1])
            for one in writers:
                one.transport.abort()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(CHUNK):
        writer.write(data)
        await writer.drain()
