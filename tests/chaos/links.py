"""TCP proxies between processes: slow, narrow, cut or reset on order."""

import asyncio
import contextlib
import socket
import struct
import threading
from dataclasses import dataclass, field

CHUNK = 65536
_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER of zero seconds: closing sends RST."""


@dataclass
class Link:
    """A proxy from a loopback port to an address. Change the fields while it runs; all are off at first."""

    host: str
    target: int
    port: int = 0
    latency: float = 0.0
    """Seconds that each piece of data is held, in both directions."""
    bandwidth: float = 0.0
    """Bytes a second of each direction of each connection; 0 is no bound."""
    cut: bool = False
    """Nothing passes and nothing is refused, as behind a dead switch."""
    touched: int = 0
    """How often a fault has met something: a piece of data, a connection."""
    writers: set[asyncio.StreamWriter] = field(default_factory=set)

    def calm(self) -> None:
        """Lets everything pass."""
        self.latency, self.bandwidth, self.cut = 0.0, 0.0, False

    async def serve(self) -> asyncio.Server:
        """Listens; the port is known afterwards."""
        server = await asyncio.start_server(self._connected, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.add(writer)
        try:
            await self._open()
            far_reader, far_writer = await asyncio.open_connection(self.host, self.target)
        except OSError:
            self._drop(writer)
            return
        self.writers.add(far_writer)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except OSError:
            pass
        finally:
            self._drop(writer)
            self._drop(far_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(CHUNK):
            await self._open()
            if self.latency or self.bandwidth:
                self.touched += 1
                await asyncio.sleep(self.latency + (len(data) / self.bandwidth if self.bandwidth else 0.0))
            writer.write(data)
            await writer.drain()
        with contextlib.suppress(OSError):
            writer.write_eof()

    async def _open(self) -> None:
        self.touched += self.cut
        while self.cut:  # noqa: ASYNC110 - set from another thread
            await asyncio.sleep(0.02)

    def _drop(self, writer: asyncio.StreamWriter) -> None:
        self.writers.discard(writer)
        writer.close()

    def reset(self) -> None:
        """Breaks every connection at once, with RST. On the loop's thread."""
        self.touched += len(self.writers)
        for writer in list(self.writers):
            raw = writer.get_extra_info("socket")
            with contextlib.suppress(OSError):
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()


class Links:
    """All links of a stack, on an event loop in a thread of their own."""

    def __init__(self) -> None:
        self.by_name: dict[str, Link] = {}
        self._loop = asyncio.new_event_loop()
        self._servers: list[asyncio.Server] = []
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)
        self._thread.start()

    def add(self, name: str, target: int) -> int:
        """A new link to a loopback port; its own port."""
        link = Link("127.0.0.1", target)
        self._servers.append(asyncio.run_coroutine_threadsafe(link.serve(), self._loop).result(10.0))
        self.by_name[name] = link
        return link.port

    def reset(self, name: str) -> None:
        """Breaks a link's connections."""
        self._loop.call_soon_threadsafe(self.by_name[name].reset)

    def calm(self) -> None:
        """Lets everything pass on all links."""
        for link in self.by_name.values():
            link.calm()

    def close(self) -> None:
        """Ends all of it."""
        for server in self._servers:
            self._loop.call_soon_threadsafe(server.close)
        for name in self.by_name:
            self.reset(name)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5.0)
        self._loop.close()
