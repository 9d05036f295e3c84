"""The edges that the policies leave open are those that the processes use, and no other.

No enforcement can be had in these tests: the policies are read as the API defines them.
"""

from typing import Any

import pytest
from tests.chart.matrix import ALL, SWITCHES, rendering
from tests.chart.rendering import SERVICES, Object, Pod, Rendered

Edge = tuple[str, str, int]
WITH_POLICIES = [name for name in ALL if name != "no-policies"]
MODELS = ("generation", "reward", "reference")


def edges(rendered: Rendered) -> set[Edge]:
    """Connections between pods of the release that both sides allow."""
    return {
        (source.component, target.component, port)
        for source in rendered.pods
        for target in rendered.pods
        for port in ports(target)
        if allows(rendered, source, "egress", "to", target, port)
        and allows(rendered, target, "ingress", "from", source, port)
    }


def ports(pod: Pod) -> list[int]:
    return [port["containerPort"] for container in pod.containers for port in container.get("ports", [])]


def allows(rendered: Rendered, pod: Pod, direction: str, side: str, other: Pod, port: int) -> bool:
    (policy,) = policies_of(rendered, pod)
    return any(
        port_matches(rule, port) and peer_matches(rule.get(side), other) for rule in policy["spec"].get(direction, [])
    )


def policies_of(rendered: Rendered, pod: Pod) -> list[Object]:
    chosen = [(policy, policy["spec"]["podSelector"]["matchLabels"]) for policy in rendered.of("NetworkPolicy")]
    return [policy for policy, selector in chosen if selector.items() <= pod.labels.items()]


def port_matches(rule: Object, port: int) -> bool:
    return "ports" not in rule or any(each["port"] == port and each["protocol"] == "TCP" for each in rule["ports"])


def peer_matches(peers: list[Any] | None, pod: Pod) -> bool:
    """Peers with a namespaceSelector are judged apart: the release's own namespace is not known to have its labels."""
    if not peers:
        return True
    inside = [peer["podSelector"] for peer in peers if "podSelector" in peer and "namespaceSelector" not in peer]
    return any(selector["matchLabels"].items() <= pod.labels.items() for selector in inside)


def expected(rendered: Rendered) -> set[Edge]:
    there = {pod.component for pod in rendered.pods}
    found = {(caller, part, port_of(part)) for caller in ("orchestrator", "rollout") for part in MODELS}
    found.add(("orchestrator", "learner", 50054))
    if "valkey" in there:
        found |= {(caller, "valkey", 6379) for caller in ("orchestrator", "rollout", "test") if caller in there}
    if "minio" in there:
        found |= {(caller, "minio", 9000) for caller in (*SERVICES, "test") if caller in there}
    if "test" in there:
        found |= {("test", part, 50060) for part in SERVICES}
    if rendered.of("LeaderWorkerSet"):
        # gloo and NCCL choose their ports themselves.
        found |= {("learner", "learner", port) for port in (29500, 50054, 50060, 9090)}
    return found


def port_of(part: str) -> int:
    return {"orchestrator": 50050, "generation": 50051, "reward": 50052, "reference": 50053, "learner": 50054}[part]


@pytest.mark.parametrize("name", WITH_POLICIES)
def test_every_pod_denies_by_default(name: str) -> None:
    rendered = rendering(name)
    for pod in rendered.pods:
        (policy,) = policies_of(rendered, pod)
        assert policy["spec"]["policyTypes"] == ["Ingress", "Egress"], pod.name


@pytest.mark.parametrize("name", [each for each in WITH_POLICIES if each not in ("open-policies", "rules")])
def test_edges_inside_the_release(name: str) -> None:
    rendered = rendering(name)
    found = edges(rendered)
    # The API's own rule names namespaces; who in the release uses it are the tests.
    api = {edge for edge in found if edge[1] == "orchestrator" and edge[2] == 50050}
    assert found - api == expected(rendered)
    assert {edge[0] for edge in api} <= {"test"}


@pytest.mark.parametrize("name", WITH_POLICIES)
def test_every_pod_finds_names_and_its_store(name: str) -> None:
    rendered = rendering(name)
    for component in SERVICES:
        (policy,) = policies_of(rendered, rendered.pod(component))
        rules = policy["spec"]["egress"]
        assert any({"protocol": "UDP", "port": 53} in rule.get("ports", []) for rule in rules)
        endpoint = rendered.config(component)["storage"]["endpoint"]
        port = int(endpoint.partition(":")[2] or 443)
        assert any(port_matches(rule, port) for rule in rules)


def test_everybody_in_the_cluster_may_call_the_api_and_nothing_else() -> None:
    rendered = rendering("default")
    for component in SERVICES:
        (policy,) = policies_of(rendered, rendered.pod(component))
        outside = [rule for rule in policy["spec"]["ingress"] if any("namespaceSelector" in p for p in rule["from"])]
        ports = {port["port"]: rule["from"] for rule in outside for port in rule["ports"]}
        assert ports.pop(9090) == [
            {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "monitoring"}}}
        ]
        assert ports == ({50050: [{"namespaceSelector": {}}]} if component == "orchestrator" else {})


def test_metrics_and_api_as_the_values_say() -> None:
    rendered = rendering("open-policies")
    (policy,) = policies_of(rendered, rendered.pod("orchestrator"))
    assert {"ports": [{"protocol": "TCP", "port": 50050}]} in policy["spec"]["ingress"]
    assert not any(port_matches(rule, 9090) for rule in policy["spec"]["ingress"])
    assert not peers_outside(rendered, "valkey")


def test_keda_reads_the_bundled_valkey_only_where_it_scales() -> None:
    assert not peers_outside(rendering("default"), "valkey")
    assert peers_outside(rendering("keda"), "valkey") == [
        {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "keda"}}}
    ]
    assert not peers_outside(rendering("keda"), "minio")


def test_external_servers_are_reached_on_their_ports() -> None:
    redis = rendering("external-redis")
    (policy,) = policies_of(redis, redis.pod("rollout"))
    assert {"ports": [{"protocol": "TCP", "port": 6380}]} in policy["spec"]["egress"]
    store = rendering("external-storage")
    (policy,) = policies_of(store, store.pod("learner"))
    assert {"ports": [{"protocol": "TCP", "port": 443}]} in policy["spec"]["egress"]
    production = rendering("production")
    (policy,) = policies_of(production, production.pod("generation"))
    assert not any(port_matches(rule, 6379) for rule in policy["spec"]["egress"])


def test_rules_of_a_service_are_added() -> None:
    rendered = rendering("rules")
    (policy,) = policies_of(rendered, rendered.pod("reward"))
    assert SWITCHES["rules"]["reward"]["networkPolicy"]["egress"][0] in policy["spec"]["egress"]
    assert {} in policy["spec"]["ingress"]
    (other,) = policies_of(rendered, rendered.pod("reference"))
    assert {} not in other["spec"]["ingress"]


def peers_outside(rendered: Rendered, component: str) -> list[Object]:
    (policy,) = policies_of(rendered, rendered.pod(component))
    return [peer for rule in policy["spec"]["ingress"] for peer in rule["from"] if "namespaceSelector" in peer]
