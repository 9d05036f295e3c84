"""Starting real servers on loopback ports for tests, and ending them."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from quatrain.local.ports import free_port

START_DEADLINE = 30.0
STOP_DEADLINE = 10.0
_PORT_TRIES = 3


@dataclass
class ServerProcess:
    """A running server. `kill`, `suspend` and `resume` are for fault tests."""

    process: subprocess.Popen[bytes]
    host: str
    port: int
    log: Path

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(STOP_DEADLINE)

    def suspend(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        if self.process.poll() is not None:
            return
        self.resume()
        self.process.terminate()
        try:
            self.process.wait(STOP_DEADLINE)
        except subprocess.TimeoutExpired:
            self.kill()


def start_server(
    command: Callable[[int], Sequence[str]],
    folder: Path,
    *,
    ready: Callable[[int], bool],
    env: dict[str, str] | None = None,
    port: int | None = None,
) -> ServerProcess:
    """Start `command(port)` in a folder and wait until `ready(port)`. A fixed port is for starting a server again."""
    log = folder / "server.log"
    for _ in range(_PORT_TRIES):
        chosen = port or free_port()
        with log.open("ab") as output:
            process = subprocess.Popen(
                list(command(chosen)),
                cwd=folder,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )
        server = ServerProcess(process, "127.0.0.1", chosen, log)
        if _wait_ready(server, ready):
            return server
        server.stop()
    raise RuntimeError(f"{command(0)[0]} did not start; its log says:\n{log.read_text(errors='replace')[-2000:]}")


@contextmanager
def running(server: ServerProcess) -> Iterator[ServerProcess]:
    try:
        yield server
    finally:
        server.stop()


def _wait_ready(server: ServerProcess, ready: Callable[[int], bool]) -> bool:
    deadline = time.monotonic() + START_DEADLINE
    while time.monotonic() < deadline and server.process.poll() is None:
        if ready(server.port):
            return True
        time.sleep(0.02)
    return False
