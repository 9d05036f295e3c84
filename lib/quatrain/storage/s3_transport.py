"""Connections to an S3 server whose time-out counts while no data flow, not for a whole body.

urllib3 sends a whole body under the time-out of connecting: 64 MiB would have to pass within three seconds on any line.
"""

import ssl
from collections.abc import Callable
from typing import Any

from urllib3 import HTTPConnectionPool, HTTPSConnectionPool, PoolManager, Retry, Timeout
from urllib3.connection import HTTPConnection, HTTPSConnection

BLOCK = 1 << 18
SEND_TIMEOUT = 20.0
"""Seconds for the peer to take one block."""
_CONNECT_TIMEOUT = 3.0
_CONNECTIONS = 16
_MAX_PAUSE = 2.0


class _BlockwiseHttp(HTTPConnection):
    def send(self, data: Any) -> None:
        _send(self, data, super().send)


class _BlockwiseHttps(HTTPSConnection):
    def send(self, data: Any) -> None:
        _send(self, data, super().send)


class _HttpPool(HTTPConnectionPool):
    ConnectionCls = _BlockwiseHttp


class _HttpsPool(HTTPSConnectionPool):
    ConnectionCls = _BlockwiseHttps


def open_pool(*, secure: bool, read_timeout: float, retries: Retry | bool) -> PoolManager:
    """Return a pool whose connections get `read_timeout` seconds for a read, SEND_TIMEOUT for a block of a body."""
    context = ssl.create_default_context() if secure else None
    timeout = Timeout(connect=_CONNECT_TIMEOUT, read=read_timeout)
    pool = PoolManager(maxsize=_CONNECTIONS, timeout=timeout, retries=retries, ssl_context=context)
    pool.pool_classes_by_scheme = {"http": _HttpPool, "https": _HttpsPool}
    return pool


def part_retries(total_wait: float) -> Retry:
    """Return the retries of one part of a large file, with pauses of about `total_wait` seconds together."""
    total = 2 + round(total_wait / _MAX_PAUSE)
    return Retry(total=total, status_forcelist=(429, 500, 502, 503, 504), backoff_factor=0.2, backoff_max=_MAX_PAUSE)


def _send(connection: HTTPConnection, data: Any, send: Callable[[Any], None]) -> None:
    if connection.sock is None:
        connection.connect()
    connection.sock.settimeout(SEND_TIMEOUT)  # for each call of sendall, however much it has to send
    if not isinstance(data, bytes | bytearray | memoryview):
        send(data)
        return
    whole = memoryview(data)
    for start in range(0, len(whole), BLOCK):
        send(whole[start : start + BLOCK])
