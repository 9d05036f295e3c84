"""Finds ports of loopback for servers that are to be started.

They are below those that Linux (from 32,768) and macOS (from 49,152) give to outgoing connections. Otherwise a
connection could take the port of a server that has died, and the server could not start again.
"""

import itertools
import os
import socket
from collections.abc import Collection, Iterator

from quatrain.errors import Unavailable

FIRST_PORT = 20_000
PORTS = 10_000


def _in_turn() -> Iterator[int]:
    """Yield all ports, again and again, from one on that most likely no other process began with."""
    start = int.from_bytes(os.urandom(4)) % PORTS
    return (FIRST_PORT + (start + step) % PORTS for step in itertools.count())


_turn = _in_turn()


def free_port(besides: Collection[int] = ()) -> int:
    """Return a port that is not in use, and none that was returned before until all have been.

    Args:
        besides: ports that have an owner, though it may not listen yet.

    Raises:
        Unavailable: every port is taken.
    """
    for port in itertools.islice(_turn, PORTS):
        if port not in besides and _binds(port):
            return port
    raise Unavailable(f"no port of 127.0.0.1 from {FIRST_PORT} to {FIRST_PORT + PORTS - 1} is free")


def is_free(port: int) -> bool:
    """Return whether a server could listen there, even one that used the port until just now."""
    return _binds(port, again=True)


def _binds(port: int, *, again: bool = False) -> bool:
    with socket.socket() as probe:
        if again:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
