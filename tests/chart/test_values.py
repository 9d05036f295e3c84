"""Values that cannot work are refused, and the message says which and why."""

import json
from typing import Any

import pytest
import yaml
from tests.chart.rendering import CHART, OPERATORS, SERVICES, Refused, generator, render

from quatrain.config.loading import known_fields

REFUSED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"generaton": {}}, ("generaton",)),
    ({"generation": {"replica": 2}}, ("/generation", "replica")),
    ({"generation": {"replicas": "two"}}, ("/generation/replicas", "integer")),
    ({"generation": {"replicas": -1}}, ("/generation/replicas", "-1")),
    ({"orchestrator": {"replicas": 0}}, ("/orchestrator/replicas",)),
    ({"generation": {"autoscaling": {"kind": "vpa"}}}, ("/generation/autoscaling/kind", "keda")),
    ({"learner": {"autoscaling": {"kind": "hpa"}}}, ("/learner/autoscaling/kind",)),
    ({"generation": {"autoscaling": {"kind": "hpa", "minReplicas": 0}}}, ("/generation/autoscaling/minReplicas",)),
    ({"learner": {"update": {"type": "Recreate"}}}, ("/learner/update/type", "OnDelete")),
    ({"learner": {"ranks": 0}}, ("/learner/ranks", "minimum")),
    ({"generation": {"ranks": 2}}, ("/generation", "ranks")),
    ({"learner": {"ranks": 2, "update": {"type": "OnDelete"}}}, ("learner.update.type", "RollingUpdate")),
    ({"learner": {"config": {"learner": {"rank": 1}}}}, ("/learner/config/learner", "rank")),
    ({"reward": {"update": {"type": "OnDelete"}}}, ("/reward/update/type", "Recreate")),
    ({"reward": {"image": {"tag": "latest"}}}, ("/reward/image/tag",)),
    ({"reward": {"image": {"digest": "abc"}}}, ("/reward/image/digest",)),
    ({"reward": {"resources": {"limits": {"memory": "much"}}}}, ("/reward/resources/limits/memory",)),
    ({"minio": {"persistence": {"size": "10 GB"}}}, ("/minio/persistence/size",)),
    ({"api": {"service": {"type": "External"}}}, ("/api/service/type", "LoadBalancer")),
    ({"config": {"server": {"prot": 1}}}, ("/config/server", "prot")),
    ({"config": {"server": {"max_message_mib": 4096}}}, ("/config/server/max_message_mib",)),
    # What the chart decides itself is no matter of `config`.
    ({"config": {"server": {"port": 1}}}, ("/config/server", "port")),
    ({"config": {"storage": {"bucket": "b"}}}, ("/config", "storage")),
    ({"orchestrator": {"config": {"sources": {"secret_key": "s"}}}}, ("/orchestrator/config/sources", "secret_key")),
    ({"generation": {"config": {"generation": {"engine": "llama"}}}}, ("/generation/config/generation/engine",)),
    ({"pool": "a pool"}, ("/pool",)),
    ({"externalRedis": {"address": "redis://redis:6379"}}, ("/externalRedis/address",)),
    ({"externalStorage": {"endpoint": "https://s3"}}, ("/externalStorage/endpoint",)),
    ({"externalStorage": {"endpoint": "s3:443"}}, ("externalStorage.existingSecret",)),
    ({"externalStorage": {"existingSecret": "s3"}}, ("externalStorage.endpoint", "minio.existingSecret")),
    ({"externalRedis": {"address": "redis", "username": "keda"}}, ("externalRedis.existingSecret", "password")),
    ({"externalRedis": {"existingSecret": "redis"}}, ("externalRedis.address", "valkey.existingSecret")),
    (
        {"tls": {"enabled": True, "existingSecret": "a", "certManager": {"enabled": True}}},
        ("tls.existingSecret", "exclude each other"),
    ),
    ({"tls": {"api": {"existingSecret": "a"}}}, ("tls.api.existingSecret", "tls.enabled")),
    (
        {"rollout": {"autoscaling": {"kind": "hpa", "minReplicas": 9, "maxReplicas": 3}}},
        ("rollout.autoscaling", "minReplicas 9", "maxReplicas 3"),
    ),
    ({"rollout": {"update": {"maxSurge": 0, "maxUnavailable": 0}}}, ("rollout.update", "no pod could ever")),
]
NEEDS: list[tuple[dict[str, Any], str, str]] = [
    ({"generation": {"autoscaling": {"kind": "keda"}}}, "generation.autoscaling.kind: keda", "keda.sh/v1alpha1"),
    ({"tls": {"enabled": True, "certManager": {"enabled": True}}}, "tls.certManager.enabled", "cert-manager.io/v1"),
    ({"monitoring": {"serviceMonitor": {"enabled": True}}}, "monitoring.serviceMonitor", "monitoring.coreos.com/v1"),
    ({"monitoring": {"rules": {"enabled": True}}}, "monitoring.rules", "monitoring.coreos.com/v1"),
    ({"learner": {"ranks": 2}}, "learner.ranks: 2", "leaderworkerset.x-k8s.io/v1"),
    ({"learner": {"kueueQueue": "a"}}, "learner.kueueQueue", "kueue.x-k8s.io"),
]


@pytest.mark.parametrize(("values", "said"), REFUSED, ids=[json.dumps(values) for values, _ in REFUSED])
def test_refused(values: dict[str, Any], said: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as refusal:
        render(values)
    for part in said:
        assert part in str(refusal.value)


@pytest.mark.parametrize(("values", "switch", "wanted"), NEEDS, ids=[switch for _, switch, _ in NEEDS])
def test_what_the_cluster_lacks_is_named(values: dict[str, Any], switch: str, wanted: str) -> None:
    render(values)
    with pytest.raises(Refused) as refusal:
        render(values, operators=[name for name in OPERATORS if not name.startswith(wanted)])
    assert switch in str(refusal.value)
    assert wanted in str(refusal.value)


def test_generated_files_are_up_to_date() -> None:
    for path, text in generator().documents().items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name}: run helm/generate.py"


def test_every_value_is_described() -> None:
    """Each key of values.yaml stands in the README, but those that only override `defaults` for a service."""
    text = yaml.safe_load((CHART / "values.yaml").read_text())
    described = {row.path for row in generator().described(CHART / "values.yaml")}
    covered = {*described, *(f"{name}.{path.partition('.')[2]}" for name in SERVICES for path in described)}
    assert {path for path in leaves(text) if not any(near(path, each) for each in covered)} == set()


def test_a_service_has_the_keys_of_the_defaults() -> None:
    schema = json.loads((CHART / "values.schema.json").read_text())["properties"]
    for name in SERVICES:
        own = {"ranks"} if name == "learner" else set()
        assert schema[name]["properties"].keys() == schema["defaults"]["properties"].keys() | own
    defaults = yaml.safe_load((CHART / "values.yaml").read_text())["defaults"]
    assert defaults.keys() == schema["defaults"]["properties"].keys()


def test_every_setting_is_the_charts_or_the_users() -> None:
    """A new key of Quatrain's configuration may be set through `config`, or is listed as the chart's own."""
    schema = generator().schema
    allowed = schema.config()["properties"]
    for key in known_fields():
        section, _, name = key.partition(".")
        managed = schema.MANAGED.get(section, set())
        secret = schema.is_secret(known_fields()[key])
        assert (name in allowed.get(section, {"properties": {}})["properties"]) != (
            secret or managed is None or name in managed
        ), key


def leaves(document: Any, path: str = "") -> list[str]:
    if not isinstance(document, dict) or not document:
        return [path]
    return [leaf for key, value in document.items() for leaf in leaves(value, f"{path}.{key}".lstrip("."))]


def near(path: str, described: str) -> bool:
    return path == described or path.startswith(f"{described}.")
