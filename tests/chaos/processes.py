"""One process of a stack under fault."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Process:
    """One supervised process. `wanted` False: it may end and stays down."""

    name: str
    kind: str
    command: list[str]
    environment: dict[str, str]
    port: int
    port_file: Path | None
    log: Path
    wanted: bool = True
    popen: "subprocess.Popen[bytes] | None" = None
    died: float = 0.0

    def start(self) -> None:
        """Starts it, again if need be."""
        if self.port_file is not None:
            self.port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self.popen = subprocess.Popen(
                self.command,
                env=self.environment,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.died = 0.0

    @property
    def pid(self) -> int:
        """Of the running process, or of the last one."""
        assert self.popen is not None, f"{self.name} was never started"
        return self.popen.pid

    def running(self) -> bool:
        """True while it lives."""
        return self.popen is not None and self.popen.poll() is None

    def serves(self) -> bool:
        """True once it has written its port file; Redis has none."""
        return self.running() and (self.port_file is None or self.port_file.exists())

    def send(self, number: int) -> None:
        """A signal to the process, if it lives."""
        if self.running():
            os.kill(self.pid, number)

    def reap(self, deadline: float) -> None:
        """Waits until the monotonic deadline, then ends it by force."""
        if self.popen is None:
            return
        try:
            self.popen.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait(10.0)
