"""The stack under fault: real processes of the product's entry points, started again when they die.

Unlike a local stack it has two orchestrators and two rollout workers, short leases, and fault points switched on.
"""

import json
import os
import signal
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import redis as redis_client
from tests.chaos.links import Links
from tests.chaos.processes import ROOT, Process
from tests.chaos.store_faults import StoreFaults

from quatrain.local.layout import StackLayout
from quatrain.local.ports import free_port
from quatrain.local.redis_server import redis_command
from quatrain.rpc.client.targets import write_targets_file

SOURCES = ("", "lib", "services", "orchestrator", "tests/chaos/clock")
"""Where the processes import from: this checkout, whichever one is installed, and a clock that can be set."""
SERVICES = ("generation", "reward", "reference", "learner")
REPLICAS = {"generation": 1, "reward": 1, "reference": 1, "learner": 1, "orchestrator": 2, "rollout": 2}
CLIENTS = ("orchestrator", "rollout")
"""Kinds that call services."""
ENDPOINT = "QUATRAIN_STORAGE__ENDPOINT"
RESTART_PAUSE = 0.5
TICK = 0.05
READY_DEADLINE = 120.0
STOP_DEADLINE = 15.0
SETTINGS = {
    "QUATRAIN_ORCHESTRATOR__LEASE": "1.5",
    "QUATRAIN_ORCHESTRATOR__POLL": "0.1",
    "QUATRAIN_ORCHESTRATOR__SWEEP": "1",
    "QUATRAIN_ROLLOUT__IDLE": "2.0",
    "QUATRAIN_LEARNER__OWNER_TIMEOUT": "20",
    "QUATRAIN_COMPUTE__THREADS": "1",
    "QUATRAIN_SERVER__SHUTDOWN_GRACE": "5",
    "CUDA_VISIBLE_DEVICES": "",
}
FOREIGN = ("REDIS_URL", "S3_ENDPOINT", "QUATRAIN_ENDPOINT", "QUATRAIN_TOKEN", "QUATRAIN_CONFIG")


@dataclass(frozen=True)
class Flavour:
    """What a stack is made of: `fake` or `torch` models, folder or S3 as store, with or without links in between."""

    name: str
    fake: bool = True
    links: tuple[str, ...] = ()
    """The kinds of servers that every client reaches by a link of its own."""
    storage: dict[str, str] = field(default_factory=dict)
    replicas: dict[str, int] = field(default_factory=lambda: dict(REPLICAS))
    settings: dict[str, str] = field(default_factory=lambda: dict(SETTINGS))
    faults: bool = True
    """Fault points are switched on."""


class ChaosStack:
    """The processes of one stack. Use `running_chaos_stack`."""

    def __init__(self, home: Path, flavour: Flavour) -> None:
        self.home = home
        self.flavour = flavour
        self.layout = StackLayout(home)
        self.layout.make_folders()
        self.links = Links()
        self.store_faults: StoreFaults | None = None
        """What goes wrong between the stack and its S3 store, if it has one."""
        self.processes: dict[str, Process] = {}
        self.starts: list[tuple[str, float]] = []
        self.redis_port = free_port()
        self.redis_persists = True
        self._lock = threading.RLock()
        self._ending = threading.Event()
        self._watcher = threading.Thread(target=self._supervise, name="chaos supervisor", daemon=True)

    # -- life

    def start(self) -> None:
        """Starts everything and waits until it serves."""
        base = {name: value for name, value in os.environ.items() if name not in FOREIGN}
        self._add(Process("redis", "redis", [], base, self.redis_port, None, self.layout.logs / "redis.log"))
        self._prepare_redis(wipe=False)
        for kind, count in self.flavour.replicas.items():
            for index in range(count):
                self._add(self._quatrain(kind, index, base))
        self._write_targets()
        for process in self.processes.values():
            self._start(process)
        self._watcher.start()
        self.await_ready()

    def _quatrain(self, kind: str, index: int, base: dict[str, str]) -> Process:
        redis_url = f"redis://127.0.0.1:{self._way(kind, 'redis', self.redis_port)}/0"
        plan = self.layout.process(kind, index, free_port(), redis_url)
        faults = {"QUATRAIN_FAULTS": str(self.faults(kind)), "QUATRAIN_FAULTS_PROCESS": plan.name}
        command = [sys.executable, "-m", "tests.chaos.fakes", kind] if self.flavour.fake else list(plan.command)
        fake = {"QUATRAIN_LEARNER__BACKEND": "fake"} if self.flavour.fake else {}
        own = {
            name: value.replace(str(self.layout.targets_file), str(self._targets_file(kind)))
            for name, value in plan.environment.items()
            if name not in FOREIGN
        }
        environment = base | own | self.flavour.settings | fake | self.flavour.storage
        if "store" in self.flavour.links:
            host, _, port = environment[ENDPOINT].rpartition(":")
            environment[ENDPOINT] = f"{host}:{self._way(kind, 'store', int(port))}"
        if self.flavour.faults:
            environment |= faults
        environment["QUATRAIN_CLOCK"] = str(self._clock(plan.name))
        environment["PYTHONPATH"] = os.pathsep.join(str(ROOT / name) for name in SOURCES)
        return Process(
            plan.name, kind, command, environment, plan.port, plan.port_file, self.layout.logs / f"{plan.name}.log"
        )

    def _add(self, process: Process) -> None:
        self.processes[process.name] = process

    def _start(self, process: Process) -> None:
        process.start()
        self.starts.append((process.name, time.time()))

    def _write_targets(self) -> None:
        """Fixed addresses, dead or alive: the pools find out who serves."""
        for client in CLIENTS:
            targets: dict[str, Sequence[str]] = {}
            for kind in SERVICES:
                ports = [self._way(client, kind, process.port) for process in self.of_kind(kind)]
                targets[kind] = [f"127.0.0.1:{port}" for port in ports]
            write_targets_file(self._targets_file(client), targets)

    def _targets_file(self, client: str) -> Path:
        return self.layout.targets_file.with_name(f"targets-{client}.json")

    def _way(self, client: str, server: str, port: int) -> int:
        """The port by which a kind of process reaches another one: that of their link, if there is one."""
        name = f"{client}-{server}"
        if server not in self.flavour.links:
            return port
        known = self.links.by_name.get(name)
        return known.port if known is not None and known.target == port else self.links.add(name, port)

    def _supervise(self) -> None:
        while not self._ending.wait(TICK):
            with self._lock:
                for process in list(self.processes.values()):
                    if process.running() or not process.wanted:
                        continue
                    if process.died == 0.0:
                        process.died = time.monotonic()
                    elif time.monotonic() - process.died >= RESTART_PAUSE:
                        self._start(process)

    def stop(self) -> None:
        """Quatrain's processes first, Redis last."""
        self._ending.set()
        if self._watcher.is_alive():
            self._watcher.join(5.0)
        self.links.calm()
        quatrain = [process for process in self.processes.values() if process.kind != "redis"]
        for group in (quatrain, [p for p in self.processes.values() if p.kind == "redis"]):
            for process in group:
                process.wanted = False
                process.send(signal.SIGCONT)
                process.send(signal.SIGTERM)
            deadline = time.monotonic() + STOP_DEADLINE
            for process in group:
                process.reap(deadline)
        self.links.close()

    def await_ready(self, deadline: float = READY_DEADLINE) -> None:
        """Waits until all wanted processes serve."""
        end = time.monotonic() + deadline
        while True:
            missing = [p.name for p in self.processes.values() if p.wanted and not p.serves()]
            if not missing:
                return
            if time.monotonic() > end:
                raise RuntimeError(f"{', '.join(missing)} did not serve within {deadline:g} s\n{self.logs()}")
            time.sleep(0.02)

    def _clock(self, name: str) -> Path:
        """The file that says how far a process's clock is ahead; see tests/chaos/clock."""
        path = self.home / "clock" / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_bytes(struct.pack("d", 0.0))
        return path

    # -- what drivers do

    def set_clock(self, name: str, ahead: float) -> None:
        """Sets the wall clock of a process."""
        with self._clock(name).open("r+b") as file:
            file.write(struct.pack("d", ahead))

    def of_kind(self, kind: str) -> list[Process]:
        """The wanted processes of a kind."""
        return [process for process in self.processes.values() if process.kind == kind and process.wanted]

    def faults(self, kind: str) -> Path:
        """Folder of the fault plans and hits of a kind of process."""
        return self.home / "faults" / kind

    def plan(self, kind: str, plan: dict[str, Any]) -> None:
        """Tells the processes of a kind what to do; the first that gets to the hit does it."""
        folder = self.faults(kind)
        (folder / "fired.json").unlink(missing_ok=True)
        temporary = folder / ".plan"
        temporary.write_text(json.dumps(plan))
        temporary.replace(folder / "plan.json")

    def fired(self, kind: str) -> dict[str, Any] | None:
        """Who did what was planned, and when; None so far."""
        try:
            note: dict[str, Any] = json.loads((self.faults(kind) / "fired.json").read_bytes())
        except FileNotFoundError:
            return None
        return note

    def withdraw(self) -> None:
        """No plan stands any more."""
        for folder in (self.home / "faults").iterdir():
            for name in ("plan.json", "fired.json"):
                (folder / name).unlink(missing_ok=True)

    def hits(self) -> "Counter[tuple[str, str]]":
        """How often each (kind, point) was hit since the stack was made."""
        found: Counter[tuple[str, str]] = Counter()
        for folder in (self.home / "faults").iterdir():
            for line in (folder / "hits").read_text().splitlines():
                found[folder.name, line.split()[2]] += 1
        return found

    def redis(self) -> "redis_client.Redis":
        """A client of the real Redis, past every link."""
        return redis_client.Redis.from_url(f"redis://127.0.0.1:{self.redis_port}/0", socket_timeout=5.0)

    def kill_redis(self, *, wipe: bool) -> None:
        """SIGKILL; with `wipe` it comes back empty, as one without persistence."""
        with self._lock:
            process = self.processes["redis"]
            process.send(signal.SIGKILL)
            process.reap(time.monotonic() + STOP_DEADLINE)
            self._prepare_redis(wipe=wipe)

    def _prepare_redis(self, *, wipe: bool) -> None:
        folder = self.home / "redis"
        if wipe:
            for path in sorted(folder.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()
        self.processes["redis"].command = redis_command(folder, self.redis_port)

    def scale(self, kind: str, count: int) -> None:
        """Brings a kind to a number of processes; those that go get SIGTERM."""
        with self._lock:
            base = dict(self.processes[f"{kind}-0"].environment)
            for index in range(count):
                name = f"{kind}-{index}"
                if name not in self.processes:
                    self._add(self._quatrain(kind, index, base))
                self.processes[name].wanted = True
            for process in self.of_kind(kind):
                if int(process.name.rpartition("-")[2]) >= count:
                    process.wanted = False
                    process.send(signal.SIGTERM)
            self._write_targets()

    def logs(self, lines: int = 15) -> str:
        """The ends of all logs."""
        parts = []
        for path in sorted(self.layout.logs.glob("*.log")):
            tail = path.read_text(errors="replace").splitlines()[-lines:]
            parts.append("\n".join([f"--- {path.name}", *tail]))
        return "\n".join(parts)


@contextmanager
def running_chaos_stack(home: Path, flavour: Flavour) -> Iterator[ChaosStack]:
    """A stack in `home`, stopped at the end."""
    stack = ChaosStack(home, flavour)
    try:
        stack.start()
        yield stack
    finally:
        stack.stop()
