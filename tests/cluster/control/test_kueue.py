"""Kueue admits what has a queue as far as the quota goes; what is beyond it waits behind a gate until there is room."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
from tests.cluster.api import Cluster, Manifest, is_ready
from tests.cluster.control_plane import Site
from tests.cluster.groups import run_lws
from tests.cluster.kueue import run_kueue
from tests.cluster.release import Release

QUEUE, FLAVOR, GPU = "team-a", "fake", "nvidia.com/gpu"
# A queue must count everything that its pods ask for.
PLENTY = {"cpu": "1k", "memory": "1Ti", "ephemeral-storage": "10Ti"}
DEADLINE = 120.0


@pytest.fixture(scope="module")
def kueue(site: Site, cluster: Cluster) -> Iterator[None]:
    with run_lws(site, cluster), run_kueue(site, cluster):
        cluster.apply(made("ResourceFlavor", FLAVOR, {}))
        yield


@dataclass(frozen=True)
class Team:
    """A namespace with a queue."""

    cluster: Cluster
    namespace: str
    releases: list[Release] = field(default_factory=list)

    def allow(self, gpus: int) -> None:
        """Sets the quota."""
        quotas = [{"name": name, "nominalQuota": amount} for name, amount in {**PLENTY, GPU: str(gpus)}.items()]
        covered = {"coveredResources": [*PLENTY, GPU], "flavors": [{"name": FLAVOR, "resources": quotas}]}
        spec = {"namespaceSelector": {}, "resourceGroups": [covered]}
        local = made("LocalQueue", QUEUE, {"clusterQueue": self.namespace})
        self.cluster.apply(made("ClusterQueue", self.namespace, spec), local, namespace=self.namespace)

    def install(self, name: str, **services: str) -> Release:
        """A release whose named services want a GPU for each pod, from the queue; does not wait for its pods."""
        options = [f"{service}.{key}" for service in services for key in ("gpus=1", f"kueueQueue={QUEUE}")]
        options += [f"{service}.{key}" for service, key in services.items()]
        release = Release(self.cluster, self.namespace, name, values=[f"--set={option}" for option in options])
        self.releases.append(release)
        done = release.try_install(wait=False)
        assert done.code == 0, done.errors
        return release

    def awaits(self, release: Release, *, running: int, held: int) -> None:
        """Waits until so many of the release's pods with a GPU run, so many wait, and Kueue says so."""
        what = f"{running} running and {held} held pods of {release.name}"
        self.cluster.wait(what, lambda: standing(release) == (running, held), DEADLINE)
        if held:
            self.cluster.wait("Kueue's account of them", self.is_somebody_pending)
            assert standing(release) == (running, held)

    def is_somebody_pending(self) -> bool:
        """Whether Kueue says that something waits for quota."""
        found = self.cluster.get("clusterqueue", self.namespace)
        return bool(found.get("status", {}).get("pendingWorkloads"))


@pytest.fixture
def team(kueue: None, cluster: Cluster, namespace: str) -> Iterator[Team]:
    made = Team(cluster, namespace)
    yield made
    for release in made.releases:  # Kueue lets go of its pods while it is there
        cluster.try_helm("uninstall", release.name, "-n", namespace, "--ignore-not-found", "--wait")
    cluster.kubectl("delete", "pod", "--all", "-n", namespace, "--timeout=60s")
    cluster.kubectl("delete", "clusterqueue", namespace, "--wait=false")


def test_pods_beyond_the_quota_wait_until_it_grows(team: Team) -> None:
    team.allow(2)

    release = team.install("only", generation="replicas=3")

    team.awaits(release, running=2, held=1)
    (held,) = (pod for pod in release.objects("pod", "generation") if is_held(pod))
    (scheduled,) = (one for one in held["status"]["conditions"] if one["type"] == "PodScheduled")
    assert (scheduled["status"], scheduled["reason"]) == ("False", "SchedulingGated")
    assert "nodeName" not in held["spec"]
    team.allow(3)
    team.awaits(release, running=3, held=0)


def test_a_release_waits_until_another_one_is_gone(team: Team) -> None:
    team.allow(2)
    first = team.install("first", generation="replicas=1", learner="replicas=1")
    team.awaits(first, running=2, held=0)

    second = team.install("second", generation="replicas=1", learner="replicas=1")

    team.awaits(second, running=0, held=2)
    assert all(map(is_ready, second.objects("pod", "orchestrator"))), "what has no queue does not wait"
    first.uninstall()
    team.awaits(second, running=2, held=0)


@pytest.mark.parametrize("pods", ["replicas=2", "ranks=2"], ids=["StatefulSet", "LeaderWorkerSet"])
def test_learners_are_admitted_together(team: Team, pods: str) -> None:
    team.allow(1)

    release = team.install("only", learner=pods)

    team.awaits(release, running=0, held=2)
    team.allow(2)
    team.awaits(release, running=2, held=0)


def made(kind: str, name: str, spec: Manifest) -> Manifest:
    return {"apiVersion": "kueue.x-k8s.io/v1beta1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def standing(release: Release) -> tuple[int, int]:
    """How many pods with a GPU run, and how many wait for Kueue."""
    pods = with_gpu(release)
    return sum(is_ready(pod) and not is_held(pod) for pod in pods), sum(map(is_held, pods))


def is_held(pod: Manifest) -> bool:
    return any(gate["name"] == "kueue.x-k8s.io/admission" for gate in pod["spec"].get("schedulingGates", ()))


def with_gpu(release: Release) -> list[Manifest]:
    found = [pod for pod in release.objects("pod") if "deletionTimestamp" not in pod["metadata"]]
    return [pod for pod in found if GPU in pod["spec"]["containers"][0]["resources"].get("limits", ())]
