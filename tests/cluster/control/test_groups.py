"""A learner of two pods as a LeaderWorkerSet: admitted, started, called at its rank 0, restarted as a group."""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.cluster.api import Cluster, Manifest, is_ready
from tests.cluster.control_plane import Site
from tests.cluster.groups import run_lws
from tests.cluster.release import Release

INDEX = "leaderworkerset.sigs.k8s.io/worker-index"
DEADLINE = 120.0


@pytest.fixture(scope="module")
def lws(site: Site, cluster: Cluster) -> Iterator[None]:
    with run_lws(site, cluster):
        yield


@dataclass(frozen=True)
class Group:
    """The pods of the release's one learner."""

    release: Release

    def pods(self) -> dict[str, Manifest]:
        """By name, those that are not on their way out."""
        found = self.release.objects("pod", "learner")
        return {pod["metadata"]["name"]: pod for pod in found if "deletionTimestamp" not in pod["metadata"]}

    def uids(self) -> dict[str, str]:
        return {name: pod["metadata"]["uid"] for name, pod in self.pods().items()}

    def await_ready(self, *, none_of: dict[str, str] | None = None) -> None:
        """Waits until both pods are ready, and both are others than those before."""

        def there() -> bool:
            pods = self.pods()
            new = not none_of or set(self.uids().values()).isdisjoint(none_of.values())
            return sorted(pods) == [self.name, f"{self.name}-1"] and new and all(map(is_ready, pods.values()))

        self.release.cluster.wait("both pods of the group", there, deadline=DEADLINE)

    @property
    def name(self) -> str:
        return f"{self.release.full_name}-learner-ranks-0"


@pytest.fixture
def group(lws: None, cluster: Cluster, namespace: str) -> Iterator[Group]:
    options = ("--set=learner.ranks=2", "--set=learner.gpus=1", "--set=learner.drain.pauseSeconds=0")
    release = Release(cluster, namespace, values=options)
    release.install()
    made = Group(release)
    made.await_ready()
    yield made
    release.uninstall()


def test_a_learner_of_two_pods_starts_and_is_called_at_rank_0(group: Group) -> None:
    release, pods = group.release, group.pods()

    for rank, name in enumerate((group.name, f"{group.name}-1")):
        (container,) = pods[name]["spec"]["containers"]
        names = [variable["name"] for variable in container["env"]]
        values = {variable["name"]: variable.get("value") for variable in container["env"]}
        assert values["LWS_WORKER_INDEX"] == str(rank) == pods[name]["metadata"]["labels"][INDEX]
        assert values["LWS_LEADER_ADDRESS"].startswith(f"{group.name}.{release.full_name}-learner-ranks.")
        # Only what stands before a variable is put into it.
        assert names.index("LWS_WORKER_INDEX") < names.index("QUATRAIN_LEARNER__RANK")
        assert names.index("LWS_LEADER_ADDRESS") < names.index("QUATRAIN_LEARNER__RENDEZVOUS")
    assert behind(release, f"{release.full_name}-learner") == {group.name}
    assert behind(release, f"{release.full_name}-learner-ranks") == set(pods)
    assert len({pod["spec"]["nodeName"] for pod in pods.values()}) == 2


@pytest.mark.parametrize("rank", [0, 1])
def test_a_pod_that_is_lost_takes_its_group_along(group: Group, rank: int) -> None:
    before = group.uids()

    lost = group.name if rank == 0 else f"{group.name}-1"
    group.release.cluster.kubectl("delete", "pod", lost, "-n", group.release.namespace, "--wait=false")

    group.await_ready(none_of=before)


def test_a_container_that_ended_takes_its_group_along(group: Group) -> None:
    """As a rank ends when it has lost the others: its node counts one restart."""
    before, cluster = group.uids(), group.release.cluster
    name = f"{group.name}-1"
    statuses = group.pods()[name]["status"]["containerStatuses"]
    patch = {"status": {"containerStatuses": [{**one, "restartCount": 1} for one in statuses]}}

    where = ("-n", group.release.namespace, "--subresource=status", "--type=merge")
    cluster.kubectl("patch", "pod", name, *where, f"--patch={json.dumps(patch)}")

    group.await_ready(none_of=before)


def behind(release: Release, service: str) -> set[str]:
    """Pods to which a Service leads."""
    selector = f"kubernetes.io/service-name={service}"
    slices = release.cluster.objects("endpointslice", release.namespace, selector)
    return {end["targetRef"]["name"] for one in slices for end in one.get("endpoints") or ()}
