"""Ports for servers that are yet to be started."""

import socket
import subprocess
import sys

import pytest

from quatrain.errors import Unavailable
from quatrain.local import ports
from quatrain.local.ports import FIRST_PORT, PORTS, free_port, is_free


def test_no_port_is_given_twice_though_nobody_listens_yet() -> None:
    given = [free_port() for _ in range(3000)]
    assert len(set(given)) == len(given)


def test_no_outgoing_connection_is_given_one() -> None:
    """Else it could hold the port of a server that has died, and the server could not start again."""
    with open("/proc/sys/net/ipv4/ip_local_port_range", encoding="ascii") as file:
        first, _ = (int(word) for word in file.read().split())
    assert first >= FIRST_PORT + PORTS


def test_taken_ports_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as other:
        port = free_port()
        other.bind(("127.0.0.1", port))
        other.listen()
        monkeypatch.setattr(ports, "_turn", iter([port, port + 1, port + 2]))
        assert free_port(besides=[port + 1]) == port + 2
        assert not is_free(port)


def test_no_free_port_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_turn", iter([FIRST_PORT]))
    with pytest.raises(Unavailable, match=r"no port of 127\.0\.0\.1 from 20000 to 29999 is free"):
        free_port(besides=range(FIRST_PORT, FIRST_PORT + PORTS))


def test_processes_begin_at_different_places() -> None:
    command = [sys.executable, "-c", "from quatrain.local.ports import free_port; print(free_port())"]
    firsts = {subprocess.run(command, capture_output=True, check=True).stdout for _ in range(3)}
    assert len(firsts) > 1


def test_a_server_that_has_just_left_may_come_back() -> None:
    port = free_port()
    for _ in range(2):
        assert is_free(port)
        with socket.socket() as server:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            server.bind(("127.0.0.1", port))
            server.listen()
            with socket.create_connection(("127.0.0.1", port)):
                server.accept()[0].close()  # The server's side ends the connection and keeps its port for a while.
