"""An HTTP proxy in front of a real S3 server that does, on order, what networks and servers do on bad days."""

import http.client
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TypeVar

SLOW_DOWN = b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
FULL = b"<?xml version='1.0'?><Error><Code>XMinioStorageFull</Code><Message>Storage backend is full.</Message></Error>"
INTERNAL = b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>Try again.</Message></Error>"
CANNED = {
    "500": (500, INTERNAL),
    "503": (503, SLOW_DOWN),
    "507": (507, FULL),
    "html": (502, b"<html>Bad Gateway</html>"),
}


@dataclass
class Answer:
    """What the real server answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


@dataclass(frozen=True)
class Fault:
    """What happens to one request of this method.

    kinds: `500`, `503`, `507` (the disk is full; all answered without asking the server), `drop` (connection closed
    before the server hears of it), `lose reply` (the server did it, then the connection closes), `truncate` (half of
    the body), `flip` (one bit of the body), `html` (a proxy's error page).
    """

    method: str
    kind: str


@dataclass
class FaultProxy:
    """`faults` are used up in order, one for each matching request; `strip` headers never reach the server."""

    port: int
    faults: list[Fault] = field(default_factory=list)
    strip: set[str] = field(default_factory=set)
    seen: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def next_fault(self, method: str, path: str) -> str:
        """What happens to a request for `path`; empty: nothing."""
        with self.lock:
            self.seen.append(method)
            for fault in self.faults:
                if fault.method == method:
                    self.faults.remove(fault)
                    return fault.kind
        return ""


Proxy = TypeVar("Proxy", bound=FaultProxy)


@contextmanager
def fault_proxy(host: str, port: int, kind: Callable[[int], Proxy] = FaultProxy) -> Iterator[Proxy]:  # type: ignore[assignment]
    """A proxy to host:port on a free loopback port."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)
    server.daemon_threads = True
    proxy = kind(server.server_address[1])
    server.RequestHandlerClass = _handler(proxy, host, port)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def _handler(proxy: FaultProxy, host: str, port: int) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            kind = proxy.next_fault(self.command, self.path)
            if kind == "drop":
                self.close_connection = True
                return
            canned = {
                "500": (500, INTERNAL),
                "503": (503, SLOW_DOWN),
                "507": (507, FULL),
                "html": (502, b"<html>Bad Gateway</html>"),
            }
            if kind in canned:
                status, text = canned[kind]
                content = "text/html" if kind == "html" else "application/xml"
                self.reply(Answer(status, [("Content-Type", content)], text), len(text))
                return
            answer = self.forward(body)
            if kind == "lose reply":
                self.close_connection = True
                return
            if kind == "flip" and answer.body:
                answer.body = bytes([answer.body[0] ^ 1]) + answer.body[1:]
            self.reply(answer, len(answer.body) // 2 if kind == "truncate" else len(answer.body))

        def forward(self, body: bytes) -> Answer:
            upstream = http.client.HTTPConnection(host, port, timeout=30)
            try:
                upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
                for name, value in self.headers.items():
                    if name.lower() not in proxy.strip:
                        upstream.putheader(name, value)
                upstream.endheaders(body)
                response = upstream.getresponse()
                return Answer(response.status, response.getheaders(), response.read())
            finally:
                upstream.close()

        def reply(self, answer: Answer, sent: int) -> None:
            self.send_response_only(answer.status)
            length = str(len(answer.body))
            for name, value in answer.headers:
                if name.lower() in ("transfer-encoding", "connection"):
                    continue
                if name.lower() == "content-length":
                    length = value  # of a HEAD, too
                    continue
                self.send_header(name, value)
            self.send_header("Content-Length", length)
            self.end_headers()
            self.wfile.write(answer.body[:sent])
            self.close_connection = sent < len(answer.body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    method: Callable[[Handler], None] = Handler.handle_any
    for verb in ("GET", "PUT", "POST", "HEAD", "DELETE"):
        setattr(Handler, f"do_{verb}", method)
    return Handler
