"""What happens to the pods of a release while a job runs. Each returns what it did, for the table."""

import time
from collections.abc import Callable, Sequence

from tests.cluster.release import Release
from tests.cluster.trial import Client

SERVICES = ("orchestrator", "rollout", "generation", "reward", "reference", "learner")
BUNDLED = ("valkey", "minio")
READY_DEADLINE = 300.0
Disturbance = Callable[[Release, Client, str], Sequence[str]]


def nothing(release: Release, client: Client, job: str) -> Sequence[str]:
    """The undisturbed run, whose weights are those that all others must have."""
    return []


def delete_every_kind(release: Release, client: Client, job: str) -> Sequence[str]:
    """One pod of each kind, with force: its processes get no chance to end their work. The job goes on after each."""
    done = []
    for component in (*SERVICES, *BUNDLED):
        wait_ready(release, "orchestrator")
        step = client.job(job)["step"]
        pod = release.pods(component)[0]
        release.cluster.kubectl("delete", "pod", pod, "-n", release.namespace, "--force", "--grace-period=0")
        wait_ready(release, component)
        done.append(f"{component} killed after step {step}")
        client.reach(job, step + 1)
    return done


def scale(release: Release, client: Client, job: str) -> Sequence[str]:
    """Generation and rollout workers 1 -> 3 -> 1."""
    for count in (3, 1):
        for component in ("generation", "rollout"):
            name = f"deployment/{release.full_name}-{component}"
            release.cluster.kubectl("scale", name, f"--replicas={count}", "-n", release.namespace)
        for component in ("generation", "rollout"):
            wait_ready(release, component)
        if count == 3:
            client.reach(job, client.job(job)["step"] + 2)
    return ["generation and rollout workers 1 -> 3 -> 1"]


def upgrade(release: Release, client: Client, job: str) -> Sequence[str]:
    """A changed value of every service: all pods are exchanged, one after the other."""
    release.upgrade("--set=defaults.podAnnotations.changed=yes")
    return ["helm upgrade exchanged the pods of all services"]


def lose_redis(release: Release, client: Client, job: str) -> Sequence[str]:
    """Valkey's pod together with its volume."""
    pod = release.pods("valkey")[0]
    claim = f"data-{pod}"
    release.cluster.kubectl("delete", "pvc", claim, "-n", release.namespace, "--wait=false")
    release.cluster.kubectl("delete", "pod", pod, "-n", release.namespace, "--force", "--grace-period=0")
    wait_ready(release, "valkey")
    return ["Valkey deleted with its volume"]


def evict(release: Release, client: Client, job: str) -> Sequence[str]:
    """One orchestrator through the Eviction API; the second is refused until the replacement is ready."""
    first, second = release.pods("orchestrator")
    gone = release.cluster.evict(first, release.namespace)
    assert gone.code == 0, gone.errors
    refused = release.cluster.evict(second, release.namespace)
    assert refused.code != 0, "the second eviction was let through"
    assert "disruption budget" in refused.errors, refused.errors
    wait_ready(release, "orchestrator")
    release.cluster.wait(
        "the second eviction", lambda: release.cluster.evict(second, release.namespace).code == 0, READY_DEADLINE
    )
    wait_ready(release, "orchestrator")
    return ["an orchestrator evicted, the second refused until its replacement was ready"]


DISTURBANCES: dict[str, Disturbance] = {
    "undisturbed": nothing,
    "killed": delete_every_kind,
    "scaled": scale,
    "upgraded": upgrade,
    "redis-lost": lose_redis,
    "evicted": evict,
}


def wait_ready(release: Release, component: str) -> None:
    """Until as many pods as wanted are ready, and no others are there."""
    kind = "statefulset" if component in ("learner", *BUNDLED) else "deployment"

    def settled() -> bool:
        found = release.object(kind, component)
        wanted = found["spec"]["replicas"]
        return bool(found["status"].get("readyReplicas", 0) == wanted == len(release.pods(component)))

    time.sleep(1.0)  # the controller has to see the pod's end first
    release.cluster.wait(f"{component} to be ready", settled, READY_DEADLINE)
