"""A run with a release that KEDA scales: the real pods follow the real backlog of a job."""

import time
from collections.abc import Sequence
from dataclasses import replace

from tests.cluster.controllers import run_keda
from tests.cluster.disturbances import READY_DEADLINE, wait_ready
from tests.cluster.release import Release
from tests.cluster.release_scenarios import ReleaseFactory
from tests.cluster.trial import FINISHED, Client, Run, run_job

# Tasks for each pod. A step has 16, of which each rollout worker takes two at once.
LAGS = {"rollout": 2, "generation": 4}
MOST = 3


def autoscaled(factory: ReleaseFactory) -> Run:
    """Up while the job runs, and down when it has ended."""
    scaling = {"kind": "keda", "maxReplicas": MOST, "pollingSeconds": 1, "cooldownSeconds": 45}
    values = [f"{service}.autoscaling.lag={lag}" for service, lag in LAGS.items()]
    values += [f"{service}.autoscaling.{key}={value}" for service in LAGS for key, value in scaling.items()]
    release = factory.release("autoscaled", *(f"--set={value}" for value in values))
    with run_keda(factory.node.site, factory.node.cluster), factory.removed_after(release):
        release.install()
        assert wanted(release) == dict.fromkeys(LAGS, 1), "scaled without a backlog"
        client = Client(release, factory.folder / "autoscaled")
        run = run_job(client, "autoscaled", lambda job: scaled_up(release, client, job))
        release.cluster.wait("one pod of each", lambda: wanted(release) == dict.fromkeys(LAGS, 1), READY_DEADLINE)
        for service in LAGS:
            wait_ready(release, service)
        release.uninstall()  # while KEDA is there to let go of what it scales
    return replace(run, notes=[*run.notes, "all 1 again after it"])


def scaled_up(release: Release, client: Client, job: str) -> Sequence[str]:
    """Waits until more pods of both services work."""
    most = wanted(release)
    while client.job(job)["state"] not in FINISHED and min(most.values()) == 1:
        now = wanted(release)
        most = {service: max(most[service], now[service]) for service in LAGS}
        time.sleep(1.0)
    assert min(most.values()) > 1, f"the backlog never raised both: {most}"
    release.cluster.wait("more than one of each to work", lambda: min(ready(release).values()) > 1, READY_DEADLINE)
    counts = " and ".join(f"{service} 1 -> {max(most[service], now)}" for service, now in ready(release).items())
    return [f"KEDA scaled {counts} by the job's backlog"]


def wanted(release: Release) -> dict[str, int]:
    """How many pods of each service the autoscaler wants."""
    return {service: int(release.object("deployment", service)["spec"]["replicas"]) for service in LAGS}


def ready(release: Release) -> dict[str, int]:
    """How many pods of each service are ready."""
    return {service: int(release.object("deployment", service)["status"].get("readyReplicas", 0)) for service in LAGS}
