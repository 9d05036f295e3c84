"""The supervisor of a local stack: `python -m quatrain.local.supervisor HOME`. Started by `up`, ended by `down`.

It starts Redis (unless REDIS_URL is set), then all processes of `wanted.json` at once, keeps them running, and follows
that file: a replica added there starts, one taken away stops, and the others go on. Only when learners are added,
generation starts again, with a job slot for each of them.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from quatrain.errors import InvalidInput
from quatrain.local.children import Child
from quatrain.local.home import remove_endpoint, write_endpoint
from quatrain.local.layout import JOB_SLOTS, KINDS, RANKS, ProcessPlan, StackLayout
from quatrain.local.ports import free_port, is_free
from quatrain.local.state import StackRecord, record_of, remove_record, write_record
from quatrain.process.files import write_whole
from quatrain.rpc.client.targets import write_targets_file
from quatrain.storage.files import disk_error
from quatrain.telemetry.logging import configure, get_logger

WANTED_FILE = "wanted.json"
PORTS_FILE = "ports.json"
TICK_SECONDS = 0.2
STOP_SECONDS = 15.0
REDIS_START_SECONDS = 10.0
TARGET_KINDS = ("generation", "reward", "reference", "learner")

log = get_logger("supervisor")


class Supervisor:
    """The process that keeps a local stack running until SIGTERM."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._layout = StackLayout(home)
        self._children: dict[str, Child] = {}
        self._ports = _read_numbers(home / PORTS_FILE)
        self._redis_url = os.environ.get("REDIS_URL", "")
        self._job_slots = 0
        self._stopping = False
        self._seen: tuple[object, ...] = ()
        self._complaint = ""

    def run(self) -> None:
        """Start the stack, keep it running, and end it on SIGTERM."""
        signal.signal(signal.SIGTERM, self._stop)
        signal.signal(signal.SIGINT, self._stop)
        self._layout.make_folders()
        try:
            if not self._redis_url:
                self._start_redis()
            while not self._stopping:
                try:
                    self._tick()
                except OSError as error:  # A full disk ends no stack: what could not be written is tried again.
                    self._complain(error)
                time.sleep(TICK_SECONDS)
        finally:
            self._end()

    def _tick(self) -> None:
        """Start what is missing or has ended, end what is not wanted, and publish what runs. Raises OSError."""
        self._follow_wanted()
        for child in self._children.values():
            if child.watch():
                log.warning("started again", name=child.plan.name, restarts=child.restarts)
        self._publish()
        self._complaint = ""

    def _complain(self, error: OSError) -> None:
        """Log an error of the disk once, not at each tick; the log may lie on the same disk."""
        text = disk_error(error, str(error.filename or self._home)).message
        if text != self._complaint:
            self._complaint = text
            with contextlib.suppress(OSError):
                log.error("the stack's files cannot be written, trying again", error=text)

    def _stop(self, *_: object) -> None:
        self._stopping = True

    def _start_redis(self) -> None:
        port = self._port("redis")
        self._redis_url = f"redis://127.0.0.1:{port}/0"
        self._add(self._layout.redis(port))
        deadline = time.monotonic() + REDIS_START_SECONDS
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1.0).close()
                return
            except OSError:
                time.sleep(0.05)

    def _follow_wanted(self) -> None:
        wanted = _read_numbers(self._home / WANTED_FILE)
        names = {f"{kind}-{index}": (kind, index) for kind in KINDS for index in range(wanted.get(kind, 0))}
        gone = {name for name in self._children if name != "redis" and name.partition("-rank-")[0] not in names}
        # A job runs only if generation has a slot for its policies, so it needs as many slots as there are learners.
        if JOB_SLOTS not in os.environ and wanted.get("learner", 0) > self._job_slots:
            self._job_slots = wanted["learner"]
            gone |= {name for name, child in self._children.items() if child.plan.kind == "generation"}
        leaving = [self._children.pop(name) for name in sorted(gone)]
        _terminate(leaving)
        if leaving:
            self._publish()  # Callers stop using them before they end.
        _await_end(leaving)
        for name, (kind, index) in names.items():
            if name not in self._children:
                plan = self._layout.process(kind, index, self._port(name), self._redis_url, self._job_slots)
                for one in [plan] if kind != "learner" else self._ranks(plan):
                    self._add(one)

    def _ranks(self, learner: ProcessPlan) -> list[ProcessPlan]:
        """Return the processes of one learner. When one ends the others do, and all are started again."""
        ranks = int(os.environ.get(RANKS, "1"))
        if ranks < 2:
            return [learner]
        port = self._port(f"{learner.name}-rendezvous")
        return [self._layout.rank(learner, rank, port) for rank in range(ranks)]

    def _add(self, plan: ProcessPlan) -> None:
        child = Child(plan, self._layout.logs / f"{plan.name}.log")
        self._children[plan.name] = child
        child.start()

    def _port(self, name: str) -> int:
        """Return the port that the process had before, which people may remember, if it is free; else another one."""
        if name not in self._ports or not is_free(self._ports[name]):
            self._ports[name] = free_port(besides=self._ports.values())
            write_whole(self._home / PORTS_FILE, json.dumps(self._ports))
        return self._ports[name]

    def _publish(self) -> None:
        """Write which processes run and where, whenever that changes."""
        records = [record for child in self._children.values() if (record := child.record()) is not None]
        serving = {name: child.serves() for name, child in self._children.items()}
        seen = (tuple(records), tuple(serving.items()))
        if seen == self._seen:
            return
        targets: dict[str, Sequence[str]] = {kind: [] for kind in TARGET_KINDS}
        for name, child in self._children.items():
            if child.plan.kind in targets and serving[name]:
                targets[child.plan.kind] = [*targets[child.plan.kind], f"127.0.0.1:{child.plan.port}"]
        write_targets_file(self._layout.targets_file, targets)
        api = self._children.get("orchestrator-0")
        if api is not None and api.serves():
            write_endpoint(self._home, self._layout.endpoint(api.plan.port))
        supervisor = record_of("supervisor", os.getpid(), 0)
        assert supervisor is not None, "this process lives"
        write_record(self._home, StackRecord(supervisor, tuple(records), all(serving.values())))
        self._seen = seen

    def _end(self) -> None:
        """End Quatrain's processes first, then Redis."""
        redis = self._children.pop("redis", None)
        for group in ([*self._children.values()], [redis] if redis is not None else []):
            _terminate(group)
            _await_end(group)
        remove_endpoint(self._home)
        remove_record(self._home)


def _terminate(children: Sequence[Child]) -> None:
    for child in children:
        child.terminate()


def _await_end(children: Sequence[Child]) -> None:
    """Wait STOP_SECONDS for all of them together, then kill those that still run."""
    deadline = time.monotonic() + STOP_SECONDS
    for child in children:
        child.kill_after(deadline)


def _read_numbers(path: Path) -> dict[str, int]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return {str(name): int(value) for name, value in document.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as error:
        raise InvalidInput(f"{path} is damaged: {error}; remove it") from error


if __name__ == "__main__":
    configure("info", "console", process="supervisor")
    Supervisor(Path(sys.argv[1])).run()
