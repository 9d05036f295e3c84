"""Faults between the stack and its S3 store, made by a proxy that stands in front of a real MinIO."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.servers.s3 import S3Server, run_minio
from typing_extensions import override

READS = ("GET",)
WRITES = ("PUT", "POST")
ALL = ("GET", "PUT", "POST", "HEAD", "DELETE")
KINDS = {
    "500": (ALL, 0.3),
    "503": (ALL, 0.3),
    "507": (WRITES, 1.0),
    "drop": (ALL, 0.3),
    "lose reply": (WRITES, 0.4),
    "truncate": (READS, 0.3),
    "flip": (READS, 0.2),
    "away": (ALL, 1.0),
    "away a minute": (ALL, 1.0),
}
"""For each kind of fault: the methods of the requests that it meets, and the share of them."""


@dataclass
class StoreFaults(FaultProxy):
    """A proxy that, between `start` and `stop`, does one kind of fault to a share of the requests."""

    kind: str = ""
    draw: random.Random = field(default_factory=lambda: random.Random(1))

    def start(self, kind: str) -> None:
        """Do this kind of fault from now on."""
        self.kind = kind

    def stop(self) -> None:
        """Let every request pass."""
        self.kind = ""

    @override
    def next_fault(self, method: str, path: str) -> str:
        kind = self.kind
        if not kind:
            return ""
        methods, share = KINDS[kind]
        with self.lock:
            hit = method in methods and self.draw.random() < share
        return ("drop" if kind.startswith("away") else kind) if hit else ""


@contextmanager
def faulty_minio(folder: Path) -> Iterator[tuple[S3Server, StoreFaults]]:
    """A real MinIO, and the proxy in front of it that the stack talks to."""
    folder.mkdir(parents=True, exist_ok=True)
    with run_minio(folder) as server, fault_proxy("127.0.0.1", server.process.port, StoreFaults) as store_faults:
        yield server, store_faults
