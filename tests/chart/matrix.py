"""The renderings that every rule is checked on: the values files as they are used, and each switch on and off."""

from typing import Any

from tests.chart.rendering import SERVICES, Rendered, render

FILES: dict[str, tuple[str, ...]] = {
    "default": (),
    "cpu": ("values-cpu.yaml",),
    "gpu": ("values-gpu.yaml",),
    "gpu-nodes": ("values-gpu.yaml", "values-gpu-nodes.yaml"),
    "production": ("values-production.yaml",),
    "production-gpu": ("values-gpu.yaml", "values-production.yaml"),
    "production-gpu-nodes": ("values-gpu.yaml", "values-gpu-nodes.yaml", "values-production.yaml"),
}

_SCALED = ("rollout", "generation", "reward", "reference")
_PLACED = {
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}],
    "affinity": {"nodeAffinity": {}},
    "priorityClassName": "training",
    "runtimeClassName": "nvidia",
    "cacheStorageClass": "fast",
    "podLabels": {"team": "a"},
    "podAnnotations": {"note": "b"},
    "extraEnv": [{"name": "NCCL_DEBUG", "value": "INFO"}],
    "extraVolumes": [{"name": "extra", "emptyDir": {}}],
    "extraVolumeMounts": [{"name": "extra", "mountPath": "/extra"}],
    "gpus": 2,
    "kueueQueue": "team-a",
}

SWITCHES: dict[str, dict[str, Any]] = {
    "registry": {"global": {"imageRegistry": "registry.example:5000/team", "imagePullSecrets": ["pull"]}},
    "names": {"fullnameOverride": "other", "commonLabels": {"cost-center": "ml"}, "pool": "large"},
    "tls": {"tls": {"enabled": True, "extraNames": ["quatrain.example"]}},
    "tls-secret": {"tls": {"enabled": True, "existingSecret": "own-tls"}},
    "tls-cert-manager": {"tls": {"enabled": True, "certManager": {"enabled": True}}},
    "tls-issuer": {
        "tls": {"enabled": True, "certManager": {"enabled": True, "issuer": {"name": "ca", "kind": "ClusterIssuer"}}}
    },
    "tls-api": {
        "tls": {"enabled": True, "api": {"existingSecret": "api", "clientCaSecret": "clients"}},
        "tests": {"job": False},
    },
    "own-secrets": {
        "auth": {"existingSecret": "tokens"},
        "valkey": {"existingSecret": "own-valkey"},
        "minio": {"existingSecret": "own-minio"},
        "sources": {"existingSecret": "own-sources", "hub": {"enabled": True, "existingSecret": "own-hub"}},
    },
    "external-redis": {"externalRedis": {"address": "redis:6380", "tls": True, "existingSecret": "redis"}},
    "trust": {
        "trust": {"existingSecret": "authorities"},
        "externalRedis": {"address": "redis:6380", "tls": True},
        "externalStorage": {"endpoint": "s3.example", "existingSecret": "s3"},
        "rollout": {"autoscaling": {"kind": "keda"}},
    },
    "external-redis-open": {"externalRedis": {"address": "redis", "database": 3}},
    "external-storage": {"externalStorage": {"endpoint": "s3.example", "existingSecret": "s3"}},
    "no-volumes": {"valkey": {"persistence": {"enabled": False}}, "minio": {"persistence": {"enabled": False}}},
    "storage-class": {
        "valkey": {"persistence": {"storageClass": "x"}},
        "minio": {"persistence": {"storageClass": "x"}},
    },
    "no-policies": {"networkPolicy": {"enabled": False}},
    "open-policies": {"networkPolicy": {"clients": [], "monitoring": [], "keda": []}},
    "no-tests": {"tests": {"enabled": False}},
    "no-account": {"serviceAccount": {"create": False}},
    "monitoring": {
        "monitoring": {"serviceMonitor": {"enabled": True}, "rules": {"enabled": True}, "dashboards": {"enabled": True}}
    },
    "load-balancer": {"api": {"service": {"type": "LoadBalancer", "annotations": {"a": "b"}}}},
    "hpa": {name: {"autoscaling": {"kind": "hpa", "minReplicas": 2}} for name in _SCALED},
    "keda": {name: {"autoscaling": {"kind": "keda"}} for name in _SCALED},
    "many": {"defaults": {"replicas": 3}},
    "ranks": {"learner": {"ranks": 2, "replicas": 3, "gpus": 1, "kueueQueue": "team-a"}},
    "no-budgets": {"defaults": {"replicas": 3, "disruptionBudget": {"enabled": False}}},
    "recreate": {"generation": {"update": {"type": "Recreate"}}, "learner": {"update": {"type": "OnDelete"}}},
    "no-surge": {"defaults": {"update": {"maxSurge": 0, "maxUnavailable": "50%"}}},
    "no-pause": {"defaults": {"drain": {"pauseSeconds": 0, "graceSeconds": 1}, "threads": 0, "topologySpread": []}},
    "placed": {"defaults": _PLACED, "orchestrator": {"gpus": 0}},
    "configured": {
        "config": {"telemetry": {"level": "debug", "format": "console"}, "server": {"max_message_mib": 128}},
        "orchestrator": {"config": {"sources": {"buckets": "corpus,other"}, "telemetry": {"level": "warning"}}},
        "generation": {"config": {"generation": {"job_slots": 4}}},
    },
    "extra": {
        "extraObjects": [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "{{ .Release.Name }}-more"}, "data": {}}
        ]
    },
    "rules": {
        "reward": {"networkPolicy": {"egress": [{"ports": [{"protocol": "TCP", "port": 9999}]}], "ingress": [{}]}}
    },
}
ALL = (*FILES, *SWITCHES)


def rendering(name: str) -> Rendered:
    """A rendering of the matrix by its name."""
    return render(files=FILES[name]) if name in FILES else render(SWITCHES[name])


def scales_itself(rendered: Rendered, component: str) -> bool:
    """Whether something else than the chart says how many pods of a service there are."""
    assert component in SERVICES
    scalers = rendered.of("HorizontalPodAutoscaler", "ScaledObject")
    return any(each["spec"]["scaleTargetRef"]["name"].endswith(f"-{component}") for each in scalers)
