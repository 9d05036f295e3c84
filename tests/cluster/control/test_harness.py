"""The control plane is real: scheduler, quotas, admission and disruption budgets decide, though no pod runs."""

import pytest
from tests.cluster.api import Cluster, Manifest

RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "capabilities": {"drop": ["ALL"]},
    "runAsNonRoot": True,
    "seccompProfile": {"type": "RuntimeDefault"},
}


def deployment(name: str, replicas: int, gpus: int, security: Manifest | None = None) -> Manifest:
    labels = {"app": name}
    container = {
        "name": "main",
        "image": "example.invalid/none:1",
        "securityContext": RESTRICTED if security is None else security,
        "resources": {"limits": {"nvidia.com/gpu": gpus}},
    }
    template = {"metadata": {"labels": labels}, "spec": {"containers": [container]}}
    spec = {"replicas": replicas, "selector": {"matchLabels": labels}, "template": template}
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": spec}


def ready_replicas(cluster: Cluster, name: str, namespace: str) -> int:
    return int(cluster.get("deployment", name, namespace)["status"].get("readyReplicas", 0))


def test_pods_run_as_far_as_the_nodes_have_gpus(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("wide", replicas=5, gpus=8), namespace=namespace)

    cluster.wait("four of five pods", lambda: ready_replicas(cluster, "wide", namespace) == 4)

    waiting = [pod for pod in cluster.objects("pod", namespace) if pod["status"]["phase"] == "Pending"]
    assert len(waiting) == 1
    assert "nvidia.com/gpu" in waiting[0]["status"]["conditions"][0]["message"]


def test_the_namespace_refuses_what_is_not_restricted(cluster: Cluster, namespace: str) -> None:
    pod = deployment("open", replicas=1, gpus=1, security={})["spec"]["template"]
    pod |= {"apiVersion": "v1", "kind": "Pod"}
    pod["metadata"]["name"] = "open"

    with pytest.raises(AssertionError, match='violates PodSecurity "restricted'):
        cluster.apply(pod, namespace=namespace)


def test_a_disruption_budget_holds_evictions_back(cluster: Cluster, namespace: str) -> None:
    cluster.apply(deployment("kept", replicas=2, gpus=1), namespace=namespace)
    spec = {"minAvailable": 2, "selector": {"matchLabels": {"app": "kept"}}}
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "kept"}, "spec": spec}
    cluster.apply(budget, namespace=namespace)
    cluster.wait("both pods", lambda: ready_replicas(cluster, "kept", namespace) == 2)

    refused = cluster.evict(cluster.names("pod", namespace)[0], namespace)

    assert refused.code != 0
    assert "disruption budget" in refused.errors
