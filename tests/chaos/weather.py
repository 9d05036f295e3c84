"""What happens between the stack and its S3 store while the weather is bad."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.servers.fault_proxy import FaultProxy, fault_proxy
from tests.servers.s3 import S3Server, run_minio

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
"""Kind of fault: which requests it meets, and which share of them."""


@dataclass
class Weather(FaultProxy):
    """A proxy that, from `worsen` to `clear`, does one kind of fault to a share of the requests."""

    kind: str = ""
    draw: random.Random = field(default_factory=lambda: random.Random(1))

    def worsen(self, kind: str) -> None:
        """From now on."""
        self.kind = kind

    def clear(self) -> None:
        """Everything passes."""
        self.kind = ""

    def next_fault(self, method: str, path: str) -> str:
        """See FaultProxy."""
        kind = self.kind
        if not kind:
            return ""
        methods, share = KINDS[kind]
        with self.lock:
            hit = method in methods and self.draw.random() < share
        return ("drop" if kind.startswith("away") else kind) if hit else ""


@contextmanager
def stormy_minio(folder: Path) -> Iterator[tuple[S3Server, Weather]]:
    """A real MinIO, and the proxy in front of it that the stack talks to."""
    folder.mkdir(parents=True, exist_ok=True)
    with run_minio(folder) as server, fault_proxy("127.0.0.1", server.process.port, Weather) as weather:
        yield server, weather
