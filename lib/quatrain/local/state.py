"""Records what runs: pids with start times, so that a process is never mistaken for one that got its pid later."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from quatrain.process.files import write_whole

STATE_FILE = "stack.json"


@dataclass(frozen=True)
class ProcessRecord:
    """One process of the stack."""

    name: str
    pid: int
    started: float
    """Start time as the kernel gives it, seconds since the epoch."""
    port: int
    restarts: int = 0

    def process(self) -> psutil.Process | None:
        """Return the running process; None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            if abs(process.create_time() - self.started) > 1.0 or process.status() == psutil.STATUS_ZOMBIE:
                return None
        except psutil.NoSuchProcess:
            return None
        return process


@dataclass(frozen=True)
class StackRecord:
    """The whole stack: its supervisor, then what it started."""

    supervisor: ProcessRecord
    processes: tuple[ProcessRecord, ...]
    ready: bool


def record_of(name: str, pid: int, port: int, restarts: int = 0) -> ProcessRecord | None:
    """Return the record of a living process; None when it has ended."""
    try:
        return ProcessRecord(name, pid, psutil.Process(pid).create_time(), port, restarts)
    except psutil.NoSuchProcess:
        return None


def write_record(home: Path, record: StackRecord) -> None:
    """Write the record, whole or not at all."""
    write_whole(home / STATE_FILE, json.dumps(asdict(record), indent=2) + "\n")


def read_record(home: Path) -> StackRecord | None:
    """Return the record; None without a stack or when the file is damaged (then nothing of it can be trusted)."""
    try:
        document = json.loads((home / STATE_FILE).read_text(encoding="utf-8"))
        return StackRecord(
            supervisor=ProcessRecord(**document["supervisor"]),
            processes=tuple(ProcessRecord(**entry) for entry in document["processes"]),
            ready=bool(document["ready"]),
        )
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def remove_record(home: Path) -> None:
    """Remove the record. Idempotent."""
    (home / STATE_FILE).unlink(missing_ok=True)
