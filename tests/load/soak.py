"""One job of many steps: nothing may grow with them, and a takeover at the end must not take longer."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.load.deployment import Deployment, Size, deployed, seconds, sized
from tests.load.processes import memory_mib, slope

from quatrain.client import Client

STEPS = 10_000
SAMPLE_SECONDS = 2.0
LISTING_TARGET_MS = 200.0
TAKEOVER_TARGET_S = 10.0
MEMORY_TARGET = 0.10
"""Growth of a process from the first to the last tenth's trend line, as a share of its size after the first tenth."""


def soak(home: Path, *, steps: int = STEPS) -> dict[str, Any]:
    """Trends of memory and time over the steps, the size of Redis, listings and a takeover at the end."""
    with deployed(home, Size(orchestrator=2, concurrency=2), local_store=True) as deployment:
        spec = sized(
            deployment.spec,
            ppo__steps=steps + 1_000_000,
            ppo__prompts_per_step=4,
            ppo__chunk_size=4,
            ppo__generation__max_new_tokens=16,
        )
        deployment.client.submit(spec, job_id="soak")
        recorder = _Recorder(deployment)
        recorder.until(steps)
        listings = _listings(deployment, steps)
        times = _step_times(deployment)
        takeover, state = _takeover(deployment)
        samples = recorder.samples
    return {
        "steps": steps,
        "ended": state,
        "seconds_a_step": _trend(times),
        "memory_mib": {name: _trend([(s["step"], s["mib"][name]) for s in samples]) for name in samples[-1]["mib"]},
        "redis_mib": {"most": max(s["redis_mib"] for s in samples), "last": samples[-1]["redis_mib"]},
        "listings_ms": listings,
        "takeover_s": takeover,
        "targets": {
            "growth_at_most": MEMORY_TARGET,
            "listing_ms_at_most": LISTING_TARGET_MS,
            "takeover_s_at_most": TAKEOVER_TARGET_S,
        },
    }


class _Recorder:
    """Samples memory while the job goes on."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.samples: list[dict[str, Any]] = []

    def until(self, steps: int) -> None:
        """Returns once so many steps are done."""
        redis = self._deployment.stack.redis()
        while True:
            job = self._deployment.client.get("soak")
            if job.state not in ("QUEUED", "STARTING", "RUNNING", "VALIDATING"):
                raise RuntimeError(f"the job is {job.state}: {job.error}\n{self._deployment.stack.logs()}")
            self.samples.append(
                {
                    "step": job.step,
                    "mib": {name: memory_mib(pid) for name, pid in self._deployment.pids().items()},
                    "redis_mib": round(redis.info("memory")["used_memory"] / 2**20, 2),
                }
            )
            if job.step >= steps:
                return
            time.sleep(SAMPLE_SECONDS)


def _trend(points: list[tuple[float, float]]) -> dict[str, Any]:
    """The trend line after the first tenth: its value there and at the end, and the growth as a share; and the mean of
    each tenth."""
    last = points[-1][0]
    later = [(x, y) for x, y in points if x >= last / 10]
    gradient = slope(later)
    mean_x, mean_y = (sum(values) / len(later) for values in zip(*later, strict=True))
    first, final = (mean_y + gradient * (x - mean_x) for x in (last / 10, last))
    tenths = [[y for x, y in points if min(9, int(10 * x / last)) == tenth] for tenth in range(10)]
    means = [round(sum(values) / len(values), 4) for values in tenths if values]
    return {"first": round(first, 4), "last": round(final, 4), "growth": round(final / first - 1, 4), "tenths": means}


def _step_times(deployment: Deployment) -> list[tuple[float, float]]:
    """Wall seconds of a step without what the models compute, in blocks of a hundred steps."""
    rows = deployment.client.metrics("soak", names=["time/step", "time/generate", "time/train"])
    blocks = []
    for start in range(0, len(rows) - 100, 100):
        block = rows[start : start + 100]
        outside = [row["time/step"] - (row["time/generate"] or 0.0) - (row["time/train"] or 0.0) for row in block]
        blocks.append((float(start), sum(outside) / len(outside)))
    return blocks


def _listings(deployment: Deployment, steps: int) -> dict[str, float]:
    """The best of five of what a page or a script asks for, in milliseconds."""
    client = deployment.client
    newest = client.get("soak").revision
    calls: dict[str, Callable[[], object]] = {
        "get": lambda: client.get("soak"),
        "events_newest_1000": lambda: client.events("soak", after_revision=newest - 1000),
        "metrics_newest_100": lambda: client.metrics("soak", from_step=steps - 100),
        "metrics_two_names_all_steps": lambda: client.metrics("soak", names=["reward/score_mean", "kl/ref_seq"]),
        "list": lambda: client.list(),
    }
    found = {}
    for name, call in calls.items():
        best = float("inf")
        for _ in range(5):
            started = time.monotonic()
            call()
            best = min(best, time.monotonic() - started)
        found[name] = round(best * 1000, 1)
    return found


def _takeover(deployment: Deployment) -> tuple[float, str]:
    """Seconds from the owner's SIGKILL to the next owner's first finished step; then how the job ends."""
    client = deployment.client
    events = client.events("soak", after_revision=0)
    owner = next(event.data["owner"] for event in reversed(events) if event.type == "owner_taken")
    process = deployment.stack.processes[owner]
    process.wanted = False
    other = next(p for p in deployment.stack.of_kind("orchestrator") if p.name != owner)
    killed = time.time()
    process.send(9)
    with Client(f"127.0.0.1:{other.port}") as survivor:
        taken = _first_step_after(survivor, killed, events[-1].revision)
        survivor.cancel("soak", now=True)
        return taken, survivor.wait("soak", timeout=120.0).state


def _first_step_after(client: Client, killed: float, revision: int) -> float:
    taken = False
    deadline = time.monotonic() + 120.0
    while time.monotonic() < deadline:
        for event in client.events("soak", after_revision=revision):
            revision = event.revision
            taken = taken or (event.type == "owner_taken" and seconds(event.time) > killed)
            if taken and event.type == "step_completed":
                return round(seconds(event.time) - killed, 2)
        time.sleep(0.1)
    raise RuntimeError("nobody took the job over within 120 s")
