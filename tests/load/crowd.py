"""Many jobs at once, and many who watch one."""

import asyncio
import statistics
import threading
import time
from pathlib import Path
from typing import Any

from tests.load.deployment import Deployment, Size, deployed, seconds, sized
from tests.load.processes import CpuMeter, memory_mib

from quatrain.client import AsyncClient
from quatrain.errors import DeadlineExpired

RUNNING = 20
QUEUED = 200
WATCHERS = 100
FAIR = 1.5
"""Slowest over median job of a full house."""


def many_jobs(home: Path, *, jobs: int = RUNNING + QUEUED) -> dict[str, Any]:
    """All are submitted at once; `RUNNING` learners and slots, so as many run at a time. Each must finish."""
    size = Size(learner=RUNNING, job_slots=RUNNING, concurrency=16)
    with deployed(home, size) as deployment:
        spec = sized(deployment.spec, ppo__steps=4, ppo__prompts_per_step=32, ppo__generation__max_new_tokens=32)
        names = [f"crowd-{number:03d}" for number in range(jobs)]
        started = time.monotonic()
        counter = _RunningCounter(deployment)
        # The first submission uploads; the others name what is there.
        first = deployment.client.submit(spec, job_id=names[0])
        for name in names[1:]:
            deployment.client.submit(first.resolved_spec or {}, job_id=name)
        submitted = time.monotonic() - started
        states = [deployment.client.wait(name, timeout=1800.0).state for name in names]
        counter.stop()
        taken = time.monotonic() - started
        durations = _durations(deployment, names)
    full_house = durations[: jobs - RUNNING]
    return {
        "jobs": jobs,
        "succeeded": states.count("SUCCEEDED"),
        "submit_seconds": round(submitted, 1),
        "seconds": round(taken, 1),
        "most_running": counter.most,
        "lists_past_their_deadline": counter.late,
        "job_seconds_median": round(statistics.median(full_house), 2),
        "job_seconds_slowest": round(max(full_house), 2),
        "slowest_over_median": round(max(full_house) / statistics.median(full_house), 2),
        "target": FAIR,
        "reached": states.count("SUCCEEDED") == jobs and max(full_house) <= FAIR * statistics.median(full_house),
    }


class _RunningCounter:
    """Looks every half second how many jobs run."""

    def __init__(self, deployment: Deployment) -> None:
        self._client = deployment.client
        self.most = 0
        self.late = 0
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Looks no more."""
        self._ending.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._ending.wait(0.5):
            try:
                self.most = max(self.most, len(self._client.list(states=["RUNNING"])))
            except DeadlineExpired:
                self.late += 1


def _durations(deployment: Deployment, names: list[str]) -> list[float]:
    """Seconds from the first learner to the end, in the order in which the jobs were taken."""
    found = []
    for name in names:
        times = {event.type: seconds(event.time) for event in reversed(deployment.client.events(name))}
        found.append((times["learner_opened"], times["job_finished"] - times["learner_opened"]))
    return [duration for _, duration in sorted(found)]


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
