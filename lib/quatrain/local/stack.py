"""`up`, `down` and `status` of a local stack: of processes, or of containers (`quatrain.local.compose`)."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

from quatrain.errors import InvalidInput, Unavailable
from quatrain.local import compose
from quatrain.local.home import remove_endpoint
from quatrain.local.layout import KINDS
from quatrain.local.state import ProcessRecord, StackRecord, read_record, remove_record
from quatrain.local.supervisor import STOP_SECONDS, WANTED_FILE
from quatrain.process.files import write_whole

READY_SECONDS = 120.0
POLL_SECONDS = 0.1

# Paths that a person may have given relative to their folder; the processes run in another one.
PATHS = (
    "QUATRAIN_CONFIG",
    "QUATRAIN_TOKEN_FILE",
    "QUATRAIN_CA",
    "QUATRAIN_AUTH__TOKENS_FILE",
    *(f"QUATRAIN_TLS__{key}" for key in ("CERT", "KEY", "CA", "API_CERT", "API_KEY", "API_CLIENT_CA")),
)

_supervisors: list["subprocess.Popen[bytes]"] = []
"""Handles of supervisors that this process started: they outlive it, but while it lives it has to reap them."""


@dataclass(frozen=True)
class ProcessStatus:
    """One process as people see it. `memory`: its proportional share in bytes; 0 when that cannot be read. `log`: the
    path of its log, or the command that shows it. Of a container only name, state and log are known."""

    name: str
    pid: int
    port: int
    restarts: int
    memory: int
    log: str
    state: str = "running"


def up(home: Path, *, mode: str = "process", replicas: dict[str, int] | None = None) -> int:
    """Start what is missing of the stack and wait until all of it serves. Idempotent. Returns 0.

    Raises InvalidInput on a mode or kind of process that does not exist, Unavailable when the stack does not get ready.
    """
    home.mkdir(parents=True, exist_ok=True)
    _check_mode(home, mode, replicas)
    if mode == "compose":
        compose.up(home)
        return 0
    wanted = dict.fromkeys(KINDS, 1) | (replicas or {})
    unknown = sorted(set(wanted) - set(KINDS))
    if unknown:
        raise InvalidInput(f"no such process: {', '.join(unknown)}; there are {', '.join(KINDS)}")
    record = read_record(home)
    running = record is not None and record.supervisor.process() is not None
    if replicas is not None or not running:
        write_whole(home / WANTED_FILE, json.dumps(wanted))
    if not running:
        if record is not None:
            _end_leftovers(home, record)
        _start_supervisor(home)
    _wait_until_ready(home, sum(_wanted(home).values()))
    return 0


def choose_mode(home: Path, *, replicas: bool) -> tuple[str, str]:
    """Return the mode when none was asked for, and why: that of the running stack, else compose if it can run."""
    running = _running_mode(home)
    if running is not None:
        return (
            running,
            "a stack of containers was started here" if running == "compose" else "a stack of processes runs here",
        )
    if replicas:
        return "process", "--replicas is for processes"
    reason = compose.why_not()
    return (
        ("compose", "the images of this version are here")
        if reason is None
        else ("process", f"no containers: {reason}")
    )


def down(home: Path) -> int:
    """End the stack's own processes or containers and keep its data. Idempotent. Returns 0."""
    if compose.is_up(home):
        compose.down(home)
    record = read_record(home)
    if record is not None:
        supervisor = record.supervisor.process()
        if supervisor is not None:
            supervisor.terminate()
            try:
                supervisor.wait(2 * STOP_SECONDS + 10.0)
            except psutil.TimeoutExpired:
                supervisor.kill()
        _end_leftovers(home, record)
    _supervisors[:] = [process for process in _supervisors if process.poll() is None]
    return 0


def status(home: Path) -> list[ProcessStatus]:
    """Return the running processes, or all containers; nothing without a stack."""
    if compose.is_up(home):
        return [
            ProcessStatus(each.name, 0, 0, 0, 0, each.log, f"{each.state} {each.health}".strip())
            for each in compose.containers(home)
        ]
    record = read_record(home)
    if record is None or record.supervisor.process() is None:
        return []
    return [_status(home, entry) for entry in (record.supervisor, *record.processes)]


def _running_mode(home: Path) -> str | None:
    """Return the mode of the stack that runs in `home`; None without one."""
    if compose.is_up(home):
        return "compose"
    record = read_record(home)
    return "process" if record is not None and record.supervisor.process() is not None else None


def _check_mode(home: Path, mode: str, replicas: dict[str, int] | None) -> None:
    """Raise InvalidInput for an unknown mode, or while a stack of the other mode runs."""
    if mode not in ("process", "compose"):
        raise InvalidInput(f"mode {mode!r}: there are process and compose (and auto, on the command line)")
    running = _running_mode(home)
    if running not in (None, mode):
        raise InvalidInput(f"a stack of mode {running} runs in {home}; `quatrain down` ends it, its data stay")
    if mode == "compose" and replicas:
        raise InvalidInput("mode compose runs one of each; --replicas is for mode process, the chart for more")


def _status(home: Path, entry: ProcessRecord) -> ProcessStatus:
    process = entry.process()
    try:
        memory = int(process.memory_full_info().pss) if process is not None else 0
    except psutil.Error:
        memory = 0
    log = str(home / "logs" / f"{entry.name}.log")
    return ProcessStatus(entry.name, entry.pid, entry.port, entry.restarts, memory, log)


def _wanted(home: Path) -> dict[str, int]:
    document: dict[str, int] = json.loads((home / WANTED_FILE).read_text(encoding="utf-8"))
    return document


def _start_supervisor(home: Path) -> None:
    (home / "logs").mkdir(parents=True, exist_ok=True)
    paths = {name: str(Path(os.environ[name]).absolute()) for name in PATHS if os.environ.get(name)}
    # A person's token is for calls to the API, which no process of the stack makes.
    environment = {name: value for name, value in (os.environ | paths).items() if name != "QUATRAIN_TOKEN"}
    with (home / "logs" / "supervisor.log").open("ab") as log:
        supervisor = subprocess.Popen(
            [sys.executable, "-m", "quatrain.local.supervisor", str(home)],
            env=environment,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    _supervisors.append(supervisor)


def _wait_until_ready(home: Path, least: int) -> None:
    deadline = time.monotonic() + READY_SECONDS
    record = None
    while time.monotonic() < deadline:
        record = read_record(home)
        if record is not None and record.ready and len(record.processes) >= least:
            return
        time.sleep(POLL_SECONDS)
    there = ", ".join(entry.name for entry in record.processes) if record is not None else "nothing"
    raise Unavailable(
        f"the stack was not ready after {READY_SECONDS:.0f} s (running: {there}); look at the logs in {home / 'logs'}, "
        "then try `quatrain down` and `quatrain up` again"
    )


def _end_leftovers(home: Path, record: StackRecord) -> None:
    """End the processes that a killed supervisor left behind, but none that has got one of their pids since."""
    left = [process for entry in record.processes if (process := entry.process()) is not None]
    for process in left:
        process.terminate()
    _, alive = psutil.wait_procs(left, timeout=STOP_SECONDS)
    for process in alive:
        process.kill()
    remove_endpoint(home)
    remove_record(home)
