"""One child process of the supervisor: started, watched, started again with a growing pause, stopped."""

import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from quatrain.backoff import Backoff
from quatrain.local.layout import ProcessPlan
from quatrain.local.state import ProcessRecord, record_of

BACKOFF = Backoff(first=1.0, longest=20.0)
HEALTHY_SECONDS = 30.0
"""A child that ran this long is started again at once when it ends."""


@dataclass
class Child:
    """A process of the stack and its log file."""

    plan: ProcessPlan
    log: Path
    restarts: int = 0
    _process: "subprocess.Popen[bytes] | None" = None
    _started: float = 0.0
    _early_ends: int = 0
    _not_before: float = field(default=0.0)

    def start(self) -> None:
        """Start the process in a session of its own, so that a Ctrl-C of the terminal does not reach it."""
        if self.plan.port_file is not None:
            self.plan.port_file.unlink(missing_ok=True)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                self.plan.command,
                env=dict(self.plan.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self._started = time.monotonic()

    def watch(self) -> bool:
        """Start the process again when it has ended and its pause is over; return whether it was started."""
        if self.running():
            return False
        now = time.monotonic()
        if self._not_before == 0.0:
            self._early_ends = 0 if now - self._started > HEALTHY_SECONDS else self._early_ends + 1
            self._not_before = now + (BACKOFF.pause(self._early_ends) if self._early_ends else 0.0)
        if now < self._not_before:
            return False
        self._not_before = 0.0
        self.restarts += 1
        self.start()
        return True

    def running(self) -> bool:
        """Return whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def serves(self) -> bool:
        """Return whether the process serves: it has written its port file. Redis has none and serves when it runs."""
        return self.running() and (self.plan.port_file is None or self.plan.port_file.exists())

    def record(self) -> ProcessRecord | None:
        """Return the record of the process; None when it does not run."""
        if self._process is None or not self.running():
            return None
        return record_of(self.plan.name, self._process.pid, self.plan.port, self.restarts)

    def terminate(self) -> None:
        """Ask the process to end."""
        if self._process is not None and self.running():
            self._process.terminate()

    def kill_after(self, deadline: float) -> None:
        """Wait for the end until the monotonic deadline, then kill the process."""
        if self._process is None:
            return
        try:
            self._process.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(10.0)
