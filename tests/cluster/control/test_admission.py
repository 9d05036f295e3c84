"""What clusters demand of pods: Pod Security (each test's namespace enforces `restricted`), quotas, drains."""

import threading

from tests.cluster.api import Cluster, Manifest
from tests.cluster.release import Release


def quota(pods: int) -> Manifest:
    """With it, the API server refuses a pod that does not say what it needs at most."""
    hard = {"pods": str(pods), "requests.cpu": "100", "requests.memory": "500Gi", "limits.memory": "500Gi"}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "all"}, "spec": {"hard": hard}}


def test_every_container_says_what_it_needs(cluster: Cluster, namespace: str) -> None:
    cluster.apply(quota(pods=100), namespace=namespace)
    release = Release(cluster, namespace)

    release.install()

    def counted() -> int:
        return int(cluster.get("resourcequota", "all", namespace)["status"]["used"]["pods"])

    cluster.wait("the quota to count the pods", lambda: counted() == len(release.pods()))
    assert "Succeeded" in release.test()


def test_a_quota_that_is_used_up_holds_pods_back(cluster: Cluster, namespace: str) -> None:
    cluster.apply(quota(pods=2), namespace=namespace)
    release = Release(cluster, namespace, seconds=15)

    refused = release.try_install()

    assert refused.code != 0
    assert len(release.pods()) == 2
    reasons = [event["message"] for event in cluster.objects("event", namespace) if event["reason"] == "FailedCreate"]
    assert any("exceeded quota: all" in reason for reason in reasons)


def test_a_node_is_drained_while_the_budgets_hold(cluster: Cluster, namespace: str) -> None:
    services = ("orchestrator", "generation", "reward", "reference", "rollout")
    release = Release(cluster, namespace, values=[f"--set={service}.replicas=2" for service in services])
    release.install()
    assert {budget["metadata"]["name"] for budget in release.objects("pdb")} == {
        f"{release.full_name}-{service}" for service in services
    }
    node = release.objects("pod", "orchestrator")[0]["spec"]["nodeName"]
    fewest = {service: 2 for service in services}
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            for service in services:
                fewest[service] = min(fewest[service], ready_replicas(release, service))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        options = ("--ignore-daemonsets", "--delete-emptydir-data", "--timeout=120s", "--force")
        cluster.kubectl("drain", node, f"--pod-selector={release.selector}", *options)
    finally:
        ended.set()
        watcher.join()
        cluster.kubectl("uncordon", node)

    assert all(pod["spec"]["nodeName"] != node for pod in release.objects("pod") if "deletionTimestamp" not in pod)
    assert min(fewest.values()) >= 1


def test_the_second_eviction_waits_for_the_first_ones_replacement(cluster: Cluster, namespace: str) -> None:
    release = Release(cluster, namespace, values=["--set=orchestrator.replicas=2"])
    release.install()
    first, second = release.pods("orchestrator")
    # Nowhere to go: the replacement stays pending until the nodes take pods again.
    nodes = cluster.names("node")
    cluster.kubectl("cordon", *nodes)
    try:
        assert cluster.evict(first, namespace).code == 0
        refused = cluster.evict(second, namespace)
    finally:
        cluster.kubectl("uncordon", *nodes)

    assert refused.code != 0
    assert "disruption budget" in refused.errors
    cluster.wait("the replacement", lambda: ready_replicas(release, "orchestrator") == 2)
    cluster.wait("the budget to allow it", lambda: cluster.evict(second, namespace).code == 0)


def ready_replicas(release: Release, service: str) -> int:
    return int(release.object("deployment", service)["status"].get("readyReplicas", 0))
