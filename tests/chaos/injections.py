"""Makes the fault of a case happen, in a thread beside the job, and notes when it was over."""

import itertools
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import grpc
import redis as redis_client
from tests.chaos.api import Api, Watcher
from tests.chaos.cases import AFTER_THE_END, HOLDS, PAUSES, STARTING_LINKS, Case
from tests.chaos.checker import Fault, Outage
from tests.chaos.hostile_entries import poison, replay
from tests.chaos.processes import Process
from tests.chaos.stack import ChaosStack

from quatrain.storage import ObjectStore
from quatrain.v1 import job_pb2

TICK = 0.02
BUDGET = 20.0
"""Seconds within which a job goes on after a fault; the target of 10 s is for an idle machine."""
TORCH_SECONDS = 40.0
"""Added where a process has to load torch before it serves again."""
PATIENCE_SECONDS = 12.0
"""Added for an object store that comes back: callers pause between their tries."""
PASSING_SECONDS = 4.0
START_SECONDS = 4.0
"""Added where the fault has to last until a killed process has begun to talk again."""
PAUSE_AT = 6
"""Revision of the job's log at which it is paused."""
PAUSE_SECONDS = 40.0
LINGER_SECONDS = 6.0
ANSWER_SECONDS = 40.0
REDIS_AWAY_SECONDS = 15.0
AWAY_SECONDS = {"away": 12.0, "away a minute": 60.0}
JUMP_SECONDS = 3600.0
LATENCY = 0.15
RESET_SECONDS = 0.3
"""Between two resets of a link's connections."""
NARROW = 30_000.0


@dataclass
class Injection:
    """The fault of one run. `happened` is False when the job never came to the place."""

    case: Case
    stack: ChaosStack
    api: Api
    watcher: Watcher
    store: ObjectStore
    job: str
    happened: bool = False
    target: str = ""
    """The process that was hit."""
    faults: list[Fault] = field(default_factory=list)
    outages: list[Outage] = field(default_factory=list)
    error: str = ""
    ending: threading.Event = field(default_factory=threading.Event)

    def prepare(self) -> None:
        """Before the job is submitted."""
        self.stack.withdraw()
        if self.case.point:
            plan = {"point": self.case.point, "action": self.case.what, "hit": self.case.hit}
            self.stack.plan(self.case.process, plan)

    def run(self) -> None:
        """Waits for the moment and acts; ends early with `ending`."""
        if not (self._await_fired() if self.case.point else self._await_revision()):
            return
        self.happened = True
        try:
            ACTIONS[self.case.fault](self)
        except (OSError, RuntimeError, redis_client.RedisError) as error:
            self.error = repr(error)

    def accompany(self) -> None:
        """Beside `run`, until the job ends: pauses and resumes it where the case needs that."""
        if self.case.point not in PAUSES:
            return
        while self.watcher.revision < PAUSE_AT and not self.ending.wait(TICK):
            continue
        until = time.monotonic() + PAUSE_SECONDS
        pause = job_pb2.PauseJobRequest(job_id=self.job, reason="chaos")
        self.api.retry_while_unavailable(lambda stub: stub.PauseJob(pause, timeout=10.0), until)
        while self.watcher.state != "PAUSED" and time.monotonic() < until and not self.ending.wait(TICK):
            continue
        resume = job_pb2.ResumeJobRequest(job_id=self.job)
        self.api.retry_while_unavailable(lambda stub: stub.ResumeJob(resume, timeout=10.0), until + PAUSE_SECONDS)

    def linger(self) -> None:
        """After the end of the job: gives the places that come only then a moment."""
        until = time.monotonic() + LINGER_SECONDS
        while self.case.point in AFTER_THE_END and not self.happened and time.monotonic() < until:
            time.sleep(TICK)

    def note(self, budget: float = BUDGET, over: float | None = None) -> None:
        """The fault is over now."""
        budget += 0.0 if self.stack.flavour.fake else TORCH_SECONDS
        self.faults.append(Fault(self.case.name, time.time() if over is None else over, budget))

    def rest(self, seconds: float) -> None:
        """Sleeps, unless the run ends."""
        self.ending.wait(seconds)

    def _await_fired(self) -> bool:
        while not self.ending.wait(TICK):
            if self.stack.fired(self.case.process) is not None:
                return True
        return self.stack.fired(self.case.process) is not None

    def _await_revision(self) -> bool:
        while not self.ending.wait(TICK):
            if self.watcher.revision >= self.case.at:
                return True
        return False

    def owner(self) -> Process:
        """The orchestrator that holds the job, as Redis says; the first one when it says nothing."""
        with self.stack.redis() as redis:
            found = redis.get(f"quatrain:owner:{self.job}")
        name = found.decode() if isinstance(found, bytes) else "orchestrator-0"
        return self.stack.processes[name]

    def victim(self) -> Process:
        """The process that the case means."""
        if self.case.process == "orchestrator":
            return self.owner()
        return self.stack.of_kind(self.case.process)[0]


def _kill(run: Injection) -> None:
    if run.case.point:
        fired = run.stack.fired(run.case.process)
        assert fired is not None, "it has fired"
        run.target = fired["process"]
        run.note(over=fired["time"])
        return
    if run.case.process == "redis":
        run.target = "redis"
        run.stack.kill_redis(wipe=False)
    else:
        victim = run.victim()
        run.target = victim.name
        victim.send(signal.SIGKILL)
    run.note()


def _stop(run: Injection) -> None:
    if run.case.point:
        fired = run.stack.fired(run.case.process)
        assert fired is not None, "it has fired"
        victim = run.stack.processes[fired["process"]]
    else:
        victim = run.victim()
        victim.send(signal.SIGSTOP)
    run.target = victim.name
    run.rest(HOLDS[run.case.process])
    victim.send(signal.SIGCONT)
    run.note()


def _link(run: Injection) -> None:
    run.target = run.case.process
    client = run.case.process.partition("-")[0]
    link = run.stack.links.by_name[run.case.process]
    before = link.touched
    seconds = PASSING_SECONDS
    if run.case.process in STARTING_LINKS:
        seconds += START_SECONDS
        for process in run.stack.of_kind(client):
            process.send(signal.SIGKILL)
    if run.case.what == "reset":
        until = time.monotonic() + seconds
        while time.monotonic() < until and not run.ending.is_set():
            run.stack.links.reset(run.case.process)
            run.rest(RESET_SECONDS)
    elif run.case.what == "latency":
        link.latency = LATENCY
    elif run.case.what == "narrow":
        link.bandwidth = NARROW
    else:
        link.cut = True
    if run.case.what != "reset":
        run.rest(seconds)
    link.calm()
    run.happened = link.touched > before
    run.note()


def _redis(run: Injection) -> None:
    what, _, owner_too = run.case.what.partition("-")
    run.target = "redis"
    if owner_too:
        victim = run.owner()
        run.target = f"redis+{victim.name}"
        victim.send(signal.SIGKILL)
    if what == "flush":
        with run.stack.redis() as redis:
            redis.flushall()
    elif what == "full":
        with run.stack.redis() as redis:
            redis.config_set("maxmemory", "1mb")
            run.rest(PASSING_SECONDS)
            redis.config_set("maxmemory", "0")
    elif what == "away":
        began = time.time()
        run.stack.processes["redis"].wanted = False
        run.stack.kill_redis(wipe=False)
        run.rest(REDIS_AWAY_SECONDS)
        run.outages.append(Outage("Redis", began, time.time(), silent=False))
        run.stack.processes["redis"].wanted = True
    else:
        run.stack.kill_redis(wipe=what == "wipe")
    run.note()


def _store(run: Injection) -> None:
    run.target = "store"
    store_faults = run.stack.store_faults
    assert store_faults is not None, "the store of this stack has no proxy for faults"
    began = time.time()
    store_faults.start(run.case.what)
    if run.case.what == "away a minute":
        run.rest(AWAY_SECONDS[run.case.what] / 2)
        run.error = _answer_without_store(run)
        run.rest(AWAY_SECONDS[run.case.what] / 2)
        run.outages.append(Outage("the object store", began, time.time(), silent=True))
    else:
        run.rest(AWAY_SECONDS.get(run.case.what, PASSING_SECONDS))
    store_faults.stop()
    run.note(budget=BUDGET + PATIENCE_SECONDS)


def _answer_without_store(run: Injection) -> str:
    """Whoever asks for the job meanwhile gets an answer in time, or an error that names the store."""
    try:
        run.api.rotate().GetJob(job_pb2.GetJobRequest(job_id=run.job), timeout=ANSWER_SECONDS)
    except grpc.RpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE or "store" not in str(error.details()):
            return f"GetJob while the store was away: {error.code()} {error.details()}"
    return ""


def _rolling(run: Injection) -> None:
    what, _, kind = run.case.what.partition("-")
    run.target = kind
    if what == "scale":
        for count in (1, 3, 1, 2):
            run.stack.scale(kind, count)
            run.rest(1.0)
        run.note()
        return
    kinds = ("generation", "reward", "reference") if kind == "services" else (kind,)
    for process in itertools.chain.from_iterable(run.stack.of_kind(each) for each in kinds):
        before = process.pid
        process.send(signal.SIGTERM)
        _await_successor(run, process, before)
    run.note()


def _await_successor(run: Injection, process: Process, before: int) -> None:
    until = time.monotonic() + 30.0
    while (process.pid == before or not process.serves()) and time.monotonic() < until and not run.ending.is_set():
        time.sleep(TICK)


def _clock(run: Injection) -> None:
    victim = run.victim()
    run.target = victim.name
    ahead = JUMP_SECONDS if run.case.what == "forward" else -JUMP_SECONDS
    run.stack.set_clock(victim.name, ahead)
    run.ending.wait()
    run.stack.set_clock(victim.name, 0.0)


ACTIONS: dict[str, Callable[[Injection], None]] = {
    "A": _kill,
    "B": _stop,
    "C": _link,
    "D": _redis,
    "E": _store,
    "F": replay,
    "G": poison,
    "H": _rolling,
    "I": _clock,
}
