"""Alerts and dashboard ask for metrics that there are."""

import json
import re

import pytest
import yaml
from tests.chart.matrix import rendering

from quatrain.orchestrator import __main__ as orchestrator  # registers all metrics that there are
from quatrain.telemetry.metrics import REGISTRY

assert orchestrator
NAMES = re.compile(r"\b(?:quatrain|process)_[a-z_]+\b|\bup\b(?=\{)")
LABELS = re.compile(r"(\w+)(?:=|!=|=~|!~)\"")
# Set by Prometheus and by the ServiceMonitor.
TARGET_LABELS = {"namespace", "pod", "app_kubernetes_io_instance", "app_kubernetes_io_component"}


def known() -> dict[str, set[str]]:
    """Labels of every metric by its names in queries."""
    found: dict[str, set[str]] = {"up": set()}
    for family in REGISTRY.collect():
        labels = set(getattr(REGISTRY._names_to_collectors.get(family.name), "_labelnames", ()))
        for suffix in ("", "_total", "_bucket", "_sum", "_count"):
            found[f"{family.name}{suffix}"] = labels
    return found


def queries() -> list[str]:
    rendered = rendering("monitoring")
    (rules,) = rendered.of("PrometheusRule")
    (panel,) = [each for each in rendered.of("ConfigMap") if each["metadata"]["name"].endswith("-dashboard")]
    document = json.loads(next(iter(panel["data"].values())))
    return [
        *(rule["expr"] for group in rules["spec"]["groups"] for rule in group["rules"]),
        *(target["expr"] for each in document["panels"] for target in each["targets"]),
    ]


def test_metrics_and_labels_exist() -> None:
    metrics = known()
    for query in queries():
        names = NAMES.findall(query)
        assert names, query
        assert set(names) <= metrics.keys(), query
        allowed = TARGET_LABELS.union(*(metrics[name] for name in names))
        assert set(LABELS.findall(query)) <= allowed, query


def test_what_every_orchestrator_tells_is_never_summed() -> None:
    shared = ("quatrain_tasks{", "quatrain_jobs{", "quatrain_learners{", "quatrain_job_slots{")
    asked = {name for name in shared for query in queries() if name in query}
    assert asked == set(shared)
    for query in queries():
        for name in shared:
            assert query.count(name) == len(re.findall(rf"max by \([a-z, ]+\) \({re.escape(name)}", query)), query


def test_every_query_is_about_this_release() -> None:
    (rules,) = rendering("monitoring").of("PrometheusRule")
    text = yaml.safe_dump(rules)
    assert "RELEASE" not in text
    assert "NAMESPACE" not in text
    for query in queries():
        assert query.count("app_kubernetes_io_instance=") >= len(NAMES.findall(query)), query


def test_targets_carry_the_labels_that_alerts_ask_for() -> None:
    rendered = rendering("monitoring")
    (monitor,) = rendered.of("ServiceMonitor")
    spec = monitor["spec"]
    assert {label.replace(".", "_").replace("/", "_") for label in spec["targetLabels"]} <= TARGET_LABELS
    (endpoint,) = spec["endpoints"]
    # Otherwise `service` would be the Kubernetes Service, and the gRPC service `exported_service`.
    assert endpoint["honorLabels"] is True
    selector = spec["selector"]["matchLabels"].items()
    scraped = [
        service["metadata"]["labels"]["app.kubernetes.io/component"]
        for service in rendered.of("Service")
        if selector <= service["metadata"]["labels"].items()
        and any(port["name"] == endpoint["port"] for port in service["spec"]["ports"])
    ]
    assert sorted(scraped) == sorted({"orchestrator", "rollout", "generation", "reward", "reference", "learner"})


@pytest.mark.parametrize("key", ["summary", "description"])
def test_alerts_say_what_it_means(key: str) -> None:
    (rules,) = rendering("monitoring").of("PrometheusRule")
    for group in rules["spec"]["groups"]:
        for rule in group["rules"]:
            assert rule["labels"]["severity"] in ("warning", "critical")
            assert rule["annotations"][key]
