"""One run: a job, a fault, the end, the verdict."""

import threading
import time
from dataclasses import dataclass, field
from typing import Any

import redis as redis_client
from tests.chaos.api import GivenUp, NoAnswer, Submission, Watcher
from tests.chaos.cases import Case
from tests.chaos.checker import Observed, Start, Violation, check, redis_left
from tests.chaos.checker.history import PROGRESS, read_history
from tests.chaos.deployment import JOB_DEADLINE, Deployment
from tests.chaos.injections import Injection
from tests.chaos.scenarios import SCENARIOS, Scenario

SAMPLE_SECONDS = 0.2
CLEAN_SECONDS = 15.0
"""How long the traces of a finished job may stay in Redis and in the index."""


@dataclass(frozen=True)
class Run:
    """What became of a case."""

    case: Case
    result: str
    """`ok`, `violated`, or `unreached` when the fault found no moment to happen."""
    target: str
    seconds: float
    unbroken_seconds: float
    recovery: float | None
    """Seconds from the fault's end to the next progress in the log."""
    events: int
    state: str
    violations: list[str] = field(default_factory=list)


class _Memory:
    """Samples the memory of Redis; while it is away there is no sample."""

    def __init__(self, deployment: Deployment) -> None:
        self.samples: list[int] = []
        self._deployment = deployment
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with self._deployment.stack.redis() as redis:
            while not self._ending.wait(SAMPLE_SECONDS):
                try:
                    info: Any = redis.info("memory")
                    self.samples.append(int(info["used_memory"]))
                except redis_client.RedisError:
                    continue

    def stop(self) -> list[int]:
        self._ending.set()
        self._thread.join(10.0)
        return self.samples


def run_case(deployment: Deployment, case: Case, job: str) -> Run:
    """Runs one case on a stack that is whole again, and leaves it so."""
    stack = deployment.stack
    unbroken = deployment.unbroken(case.variant)
    stack.await_ready()
    began, started = time.time(), time.monotonic()
    deadline = started + JOB_DEADLINE
    memory = _Memory(deployment)
    scenario = SCENARIOS.get(case.variant, Scenario)(deployment, case.variant, job)
    scenario.prepare()
    watcher = Watcher(deployment.api, job)
    injection = Injection(case, stack, deployment.api, watcher, deployment.store, job)
    injection.prepare()
    beside = [threading.Thread(target=work, daemon=True) for work in (injection.run, injection.accompany)]
    for thread in beside:
        thread.start()
    submission = Submission(deployment.api, scenario.make(), job, lost=scenario.lost)
    problems = scenario.problems
    try:
        submission.run(deadline, times=2 if case.what == "submit-twice" else 1)
        scenario.run()
        while not watcher.ended and time.monotonic() < deadline and not problems:
            deployment.api.check()
            time.sleep(0.02)
    except NoAnswer as error:
        problems.append(f"something was not accepted: {error}")
    except GivenUp:
        injection.ending.set()
        watcher.stop()
        raise
    seconds = time.monotonic() - started
    if not watcher.ended:
        problems.append(f"the job had not ended after {seconds:.0f} s (state {watcher.state or 'unknown'})")
    injection.linger()
    injection.ending.set()
    for thread in beside:
        thread.join(60.0)
    stack.withdraw()
    stack.links.calm()
    stack.await_ready()
    seen = scenario.finish()
    left, indexed = _await_clean(deployment, job)
    watcher.stop()
    observed = Observed(
        running=not watcher.ended,
        clock_jumped=case.fault == "I",
        created=submission.answers,
        watches=[watcher.connections],
        redis_left=left,
        index_left=indexed,
        redis_memory=memory.stop() or None,
        faults=injection.faults,
        starts=[Start(name, at) for name, at in stack.starts if at >= began],
        outages=injection.outages,
        **seen,
    )
    found = check(deployment.objects, job, observed, unbroken)
    return _judge(deployment, injection, job, seconds, [*problems, *_texts(found, injection)])


def _texts(found: list[Violation], injection: Injection) -> list[str]:
    texts = [str(violation) for violation in found]
    return [*texts, injection.error] if injection.error else texts


def _await_clean(deployment: Deployment, job: str) -> tuple[list[str], bool]:
    """What is left of the job in Redis and in the index once there was time to clean up."""
    until = time.monotonic() + CLEAN_SECONDS
    with deployment.stack.redis() as redis:
        while True:
            try:
                left = redis_left(redis, job)
            except redis_client.RedisError as error:
                left = [repr(error)]
            indexed = deployment.store.stat(f"active/{job}") is not None
            if (not left and not indexed) or time.monotonic() > until:
                return left, indexed
            time.sleep(0.05)


def _judge(deployment: Deployment, injection: Injection, job: str, seconds: float, violations: list[str]) -> Run:
    history = read_history(deployment.objects, job)
    recovery = None
    if injection.faults:
        over = injection.faults[0].over
        progress = [event.time for event in history.events if event.type in PROGRESS and event.time > over]
        recovery = round(min(progress) - over, 3) if progress else None
    result = "violated" if violations else "ok" if injection.happened else "unreached"
    return Run(
        case=injection.case,
        result=result,
        target=injection.target,
        seconds=round(seconds, 2),
        unbroken_seconds=round(deployment.unbroken_seconds(injection.case.variant), 2),
        recovery=recovery,
        events=len(history.events),
        state=history.end.data["state"] if history.end else "",
        violations=violations,
    )
