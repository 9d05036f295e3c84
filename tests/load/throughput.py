"""Rollouts a second through tasks, workers, collection and sealing; and what more generation replicas bring."""

from pathlib import Path
from typing import Any

from tests.load.deployment import COMPLETION_TOKENS, Deployment, Size, deployed, seconds, sized
from tests.load.processes import CpuMeter

TARGET_ROLLOUTS = 2000
TARGET_LINEAR = 0.9
SKIPPED_STEPS = 2
"""Steps at the start that do not count: connections, first tables, the probe."""


def throughput(home: Path, *, steps: int = 24) -> dict[str, Any]:
    """An engine without latency: everything around it is the limit."""
    with deployed(home, Size(rollout=1, concurrency=8)) as deployment:
        spec = sized(
            deployment.spec, ppo__steps=steps, ppo__prompts_per_step=1024, ppo__chunk_size=64, ppo__staleness=2
        )
        meter = CpuMeter(deployment.pids())
        rate = rollouts_a_second(deployment, spec, "throughput")
        cpu = meter.shares()
    return {
        "completion_tokens": COMPLETION_TOKENS,
        "rollouts_a_second": rate,
        "target": TARGET_ROLLOUTS,
        "reached": rate >= TARGET_ROLLOUTS,
        "cpu_seconds": cpu,
    }


def scaling(home: Path, *, latency: float = 0.25, most: int = 8) -> dict[str, Any]:
    """Rollouts a second with one generation replica and with `most`, each chunk taking the same time.

    The job is the same for both but for its length: each step costs a probe besides its chunks, which would weigh more
    on one replica if that had the shorter steps. `share_of_bound` is the rate over that of replicas that never rest.
    """
    rates, shares, chunk = {}, {}, 16
    for replicas, steps in ((1, 6), (most, 18)):
        size = Size(generation=replicas, latency=latency, concurrency=4 * replicas)
        with deployed(home / f"of-{replicas}", size) as deployment:
            spec = sized(
                deployment.spec,
                ppo__steps=steps,
                ppo__prompts_per_step=512,
                ppo__chunk_size=chunk,
                ppo__staleness=2,
            )
            rates[replicas] = rollouts_a_second(deployment, spec, f"scaling-{replicas}")
            shares[replicas] = round(rates[replicas] * latency / (replicas * chunk), 3)
    share = rates[most] / (most * rates[1])
    return {
        "latency_s": latency,
        "chunk": chunk,
        "rollouts_a_second": {str(replicas): rate for replicas, rate in rates.items()},
        "share_of_bound": {str(replicas): each for replicas, each in shares.items()},
        "share_of_linear": round(share, 3),
        "target": TARGET_LINEAR,
        "reached": share >= TARGET_LINEAR,
    }


def rollouts_a_second(deployment: Deployment, spec: dict[str, Any], job: str) -> float:
    """Runs a job; sealed rollouts over the time from the first seal that counts to the last."""
    deployment.client.submit(spec, job_id=job)
    done = deployment.client.wait(job, timeout=900.0)
    if done.state != "SUCCEEDED":
        raise RuntimeError(f"{job} ended {done.state}: {done.error}\n{deployment.stack.logs()}")
    seals = [event for event in deployment.client.events(job) if event.type == "batch_sealed"][SKIPPED_STEPS:]
    taken = seconds(seals[-1].time) - seconds(seals[0].time)
    rollouts = sum(int(event.data["rollouts"]) for event in seals[1:])
    return round(rollouts / taken, 1)
