"""The S3 adapter on a slow line, and before a server that takes nothing: a real MinIO behind a throttled socket."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest
from tests.servers.s3 import S3Server

from quatrain.errors import Unavailable
from quatrain.storage import s3, s3_transport
from quatrain.storage.s3 import S3Store

BLOCK = 1 << 16


@contextmanager
def line(target: tuple[str, int], bytes_per_second: float) -> Iterator[int]:
    """A port that forwards to the target, upwards at this rate; 0: it takes nothing."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BLOCK)  # else the kernel takes what we do not
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        thread = threading.Thread(target=_accept, args=(listener, target, bytes_per_second), daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join(10)


def _accept(listener: socket.socket, target: tuple[str, int], rate: float) -> None:
    with suppress(OSError), ExitStack() as kept:  # what takes nothing stays open
        while True:
            near = kept.enter_context(listener.accept()[0])
            if rate:
                far = socket.create_connection(target)
                threading.Thread(target=_copy, args=(near, far, rate), daemon=True).start()
                threading.Thread(target=_copy, args=(far, near, 0.0), daemon=True).start()


def _copy(source: socket.socket, target: socket.socket, rate: float) -> None:
    with suppress(OSError), source, target:
        while data := source.recv(BLOCK):
            if rate:
                time.sleep(len(data) / rate)
            target.sendall(data)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A whole object takes longer than any single time-out."""
    monkeypatch.setattr(s3_transport, "_CONNECT_TIMEOUT", 0.5)
    monkeypatch.setattr(s3_transport, "SEND_TIMEOUT", 2.0)
    monkeypatch.setattr(s3, "_READ_TIMEOUT", 10.0)
    monkeypatch.setattr(s3, "PART_SIZE", 12 << 20)


def store_over(port: int, direct: S3Store, server: S3Server, total_wait: float) -> S3Store:
    address = server.address(direct.name.rpartition("/")[2], total_wait=total_wait)
    return S3Store(replace(address, endpoint=f"127.0.0.1:{port}"))


@pytest.mark.usefixtures("impatient")
def test_what_takes_longer_than_any_time_out_arrives_over_a_slow_line(minio_server: S3Server, tmp_path: Path) -> None:
    direct = minio_server.new_store()
    whole, parts = b"1" * (12 << 20), tmp_path / "parts"
    parts.write_bytes(b"2" * (24 << 20))
    process = minio_server.process
    with line((process.host, process.port), 6 << 20) as port:
        store = store_over(port, direct, minio_server, total_wait=0.2)
        assert store.put_if_absent("once", whole)
        store.put_file("file", parts)

    assert direct.get("once") == whole
    assert direct.get("file") == parts.read_bytes()


@pytest.mark.usefixtures("impatient")
def test_a_server_that_takes_nothing_is_given_up(minio_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(s3_transport, "SEND_TIMEOUT", 0.5)
    monkeypatch.setattr(s3, "_READ_TIMEOUT", 0.5)
    direct = minio_server.new_store()
    with line(("", 0), 0.0) as port:
        store = store_over(port, direct, minio_server, total_wait=0.2)
        with pytest.raises(Unavailable, match="create stalled"):
            store.put_if_absent("stalled", b"1" * (12 << 20))
