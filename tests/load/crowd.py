"""Many jobs at once, and many who watch one."""

import asyncio
import json
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.load.deployment import Deployment, Size, deployed, seconds, sized
from tests.load.processes import CpuMeter, memory_mib

from quatrain.client import AsyncClient
from quatrain.rpc.client.targets import write_targets_file

RUNNING = 20
QUEUED = 200
WATCHERS = 100
LIST_EVERY_SECONDS = 5.0
TARGETS_READ_SECONDS = 3.0
"""After which an orchestrator has counted its learners again."""
FAIR = 1.5
"""Slowest over median job of a full house."""


def many_jobs(home: Path, *, jobs: int = RUNNING + QUEUED) -> dict[str, Any]:
    """All are submitted while no learner can be reached, then `RUNNING` learners serve: so many run, the others wait.

    Submitted beside running jobs they would end as fast as they come, and few would run at once. Each must finish.
    """
    size = Size(learner=RUNNING, job_slots=RUNNING, concurrency=16)
    with deployed(home, size) as deployment:
        spec = sized(deployment.spec, ppo__steps=4, ppo__prompts_per_step=32, ppo__generation__max_new_tokens=32)
        names = [f"crowd-{number:03d}" for number in range(jobs)]
        with _no_learners(deployment):
            started = time.monotonic()
            # The first submission uploads; the others name what is there.
            first = deployment.client.submit(spec, job_id=names[0])
            for name in names[1:]:
                deployment.client.submit(first.resolved_spec or {}, job_id=name)
            submitted = time.monotonic() - started
            waiting = [job.state for job in deployment.client.list()].count("QUEUED")
        started = time.monotonic()
        lister = _Lister(deployment)
        states = [deployment.client.wait(name, timeout=1800.0).state for name in names]
        taken = time.monotonic() - started
        lister.stop()
        spans = _spans(deployment, names)
    full_house = [end - begin for begin, end in spans[: jobs - RUNNING]]
    median = statistics.median(full_house)
    return {
        "jobs": jobs,
        "succeeded": states.count("SUCCEEDED"),
        "submit_seconds": round(submitted, 1),
        "waiting_at_the_start": waiting,
        "seconds": round(taken, 1),
        "most_running": _max_at_once(spans),
        "list_seconds": {"first": lister.seconds[0], "slowest": max(lister.seconds)},
        "job_seconds_median": round(median, 2),
        "job_seconds_slowest": round(max(full_house), 2),
        "slowest_over_median": round(max(full_house) / median, 2),
        "target": FAIR,
        "reached": states.count("SUCCEEDED") == jobs
        and _max_at_once(spans) == RUNNING
        and max(full_house) <= FAIR * median,
    }


@contextmanager
def _no_learners(deployment: Deployment) -> Iterator[None]:
    """The targets name one learner, where nobody listens: jobs are accepted and wait."""
    file = deployment.stack.layout.targets_file.with_name("targets-orchestrator.json")
    targets = json.loads(file.read_text())
    write_targets_file(file, targets | {"learner": ["127.0.0.1:1"]})
    time.sleep(TARGETS_READ_SECONDS)
    try:
        yield
    finally:
        write_targets_file(file, targets)


class _Lister:
    """Lists all jobs every few seconds beside their work, and notes how long that takes."""

    def __init__(self, deployment: Deployment) -> None:
        self._client = deployment.client
        self.seconds: list[float] = []
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Lists no more."""
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while True:
            started = time.monotonic()
            self._client.list()
            self.seconds.append(round(time.monotonic() - started, 2))
            if self._ending.wait(LIST_EVERY_SECONDS):
                return


def _spans(deployment: Deployment, names: list[str]) -> list[tuple[float, float]]:
    """From a job's first step on a learner to its end, in the order in which the jobs were taken."""
    found = []
    for name in names:
        times: dict[str, float] = {}
        for event in deployment.client.events(name):
            running = event.type == "state_changed" and event.data["state"] == "RUNNING"
            times.setdefault("running" if running else event.type, seconds(event.time))
        found.append((times["running"], times["job_finished"]))
    return sorted(found)


def _max_at_once(spans: list[tuple[float, float]]) -> int:
    """Jobs that ran at the same time, at most."""
    return max(sum(begin <= at < end for begin, end in spans) for at, _ in spans)


def watchers(home: Path, *, count: int = WATCHERS) -> dict[str, Any]:
    """Everybody must see every event in order, the last one included; how late it comes, and what it costs."""
    with deployed(home, Size(concurrency=8), local_store=True) as deployment:
        spec = sized(deployment.spec, ppo__steps=40, ppo__prompts_per_step=16, ppo__generation__max_new_tokens=16)
        alone = _job_seconds(deployment, spec, "alone", 0)
        meter = CpuMeter(deployment.pids())
        watched = _job_seconds(deployment, spec, "watched", count)
        return {
            "watchers": count,
            "complete": watched["complete"],
            "job_seconds_alone": alone["seconds"],
            "job_seconds_watched": watched["seconds"],
            "last_event_lag_s": watched["lag"],
            "orchestrator_mib": round(memory_mib(deployment.pids()["orchestrator-0"]), 1),
            "cpu_seconds": meter.shares(),
            "reached": watched["complete"] == count,
        }


def _job_seconds(deployment: Deployment, spec: dict[str, Any], job: str, count: int) -> dict[str, Any]:
    deployment.client.submit(spec, job_id=job)
    started = time.monotonic()
    seen, ends = asyncio.run(_watch_all(deployment.client.target, job, count))
    deployment.client.wait(job, timeout=600.0)
    taken = time.monotonic() - started
    revisions = [event.revision for event in deployment.client.events(job)]
    # A watcher begins with a snapshot of its moment; from there on it must see everything.
    complete = sum(found == revisions[-len(found) :] and len(found) > 0 for found in seen)
    return {"seconds": round(taken, 2), "complete": complete, "lag": round(max(ends) - min(ends), 3) if ends else 0.0}


async def _watch_all(target: str, job: str, count: int) -> tuple[list[list[int]], list[float]]:
    ends: list[float] = []

    async def one() -> list[int]:
        async with AsyncClient(target) as client:
            found = [update.revision async for update in client.watch(job) if update.event is not None]
            ends.append(time.monotonic())
            return found

    return list(await asyncio.gather(*(one() for _ in range(count)))), ends
