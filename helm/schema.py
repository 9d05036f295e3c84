"""The schema of the chart's values: strict; what `config` may hold comes from Quatrain's own configuration model."""

from quatrain.config.loading import known_fields
from quatrain.config.schema import ProcessConfig
from quatrain.config.sources import is_secret
from quatrain.json_values import JsonObject, JsonValue

Schema = JsonObject

# Keys that the chart sets from its other values. Secret keys come from Kubernetes Secrets.
MANAGED = {
    "server": {"host", "port", "health_port", "metrics_port", "port_file", "shutdown_grace", "insecure"},
    "auth": None,
    "tls": {"cert", "key", "ca", "api_cert", "api_key", "api_client_ca"},
    "storage": None,
    "queue": None,
    "compute": {"device", "threads", "cache_dir", "cache_bytes"},
    "learner": {"id", "targets", "ranks", "rank", "rendezvous"},
    "orchestrator": {"id", "pool", "generation", "reward", "reference", "local_files"},
    "rollout": {"id", "pool", "generation", "reward", "reference"},
}
QUANTITY = r"^[0-9]+(\.[0-9]+)?(m|k|Ki|M|Mi|G|Gi|T|Ti)?$"
SERVICES = ("orchestrator", "rollout", "generation", "reward", "reference", "learner")
SCALED = ("rollout", "generation", "reward", "reference")

TEXT: Schema = {"type": "string"}
FLAG: Schema = {"type": "boolean"}
FREE: Schema = {"type": "object"}
LISTED: Schema = {"type": "array", "items": {"type": "object"}}
TEXTS: Schema = {"type": "object", "additionalProperties": TEXT}
NAMES: Schema = {"type": "array", "items": {"type": "string", "minLength": 1}}
SECRET: Schema = {"type": "string", "pattern": r"^([a-z0-9]([-.a-z0-9]*[a-z0-9])?)?$", "maxLength": 253}
USER: Schema = {"type": "string", "pattern": r"^\S*$"}
ADDRESS: Schema = {"type": "string", "pattern": r"^([^:/@\s]+(:[0-9]{1,5})?)?$"}


def whole(least: int, most: int | None = None) -> Schema:
    """Return the schema of a whole number."""
    limits: Schema = {"minimum": least} if most is None else {"minimum": least, "maximum": most}
    return {"type": "integer", **limits}


def one_of(*choices: str) -> Schema:
    """Return the schema of one of some words."""
    return {"type": "string", "enum": list(choices)}


def section(**properties: JsonValue) -> Schema:
    """Return the schema of a section that knows these keys and no other."""
    return {"type": "object", "additionalProperties": False, "properties": properties}


AMOUNT: Schema = {"type": ["string", "integer", "number"], "pattern": QUANTITY}
RESOURCES = section(
    requests={"type": "object", "additionalProperties": AMOUNT},
    limits={"type": "object", "additionalProperties": AMOUNT},
    claims=LISTED,
)
IMAGE = section(
    repository={"type": "string", "pattern": r"^([a-z0-9]+([._/-][a-z0-9]+)*)?$"},
    tag={"type": "string", "pattern": r"^([\w][\w.-]{0,127})?$", "not": {"const": "latest"}},
    digest={"type": "string", "pattern": r"^(sha256:[0-9a-f]{64})?$"},
)
SHARE: Schema = {"anyOf": [whole(0), {"type": "string", "pattern": "^[0-9]+%$"}]}
PERSISTENCE = section(enabled=FLAG, size={"type": "string", "pattern": QUANTITY}, storageClass=TEXT)
PLACEMENT = {"nodeSelector": TEXTS, "tolerations": LISTED, "priorityClassName": TEXT}


def config() -> Schema:
    """Return the schema of the sections and keys of docs/configuration.md that the chart leaves to its user."""
    model = ProcessConfig.model_json_schema()
    fields = known_fields()
    sections: dict[str, Schema] = {}
    for name, part in model["properties"].items():
        managed = MANAGED.get(name, set())
        if managed is None:
            continue
        reference = part.get("$ref") or part["allOf"][0]["$ref"]
        keys = model["$defs"][reference.rpartition("/")[2]]["properties"]
        left = {
            key: _plain(field)
            for key, field in keys.items()
            if key not in managed and not is_secret(fields[f"{name}.{key}"])
        }
        sections[name] = section(**left)
    return section(**sections)


def _plain(field: Schema) -> Schema:
    """Return only what limits a value; lists may also be text with commas."""
    kept = {key: value for key, value in field.items() if key not in ("default", "title", "description", "secret")}
    if kept.get("type") == "array":
        return {"anyOf": [kept, TEXT]}
    return kept


def service(name: str) -> Schema:
    """Return the schema of the tree of a service, or of `defaults`."""
    kinds = ("none", "hpa", "keda") if name in SCALED else ("none",)
    updates = {"learner": ("RollingUpdate", "OnDelete"), "defaults": ("RollingUpdate",)}
    own = {"ranks": whole(1)} if name == "learner" else {}
    return section(
        **own,
        replicas=whole(1) if name == "orchestrator" else whole(0),
        image=IMAGE,
        gpus=whole(0),
        gpuResource={"type": "string", "minLength": 1},
        threads=whole(0),
        resources=RESOURCES,
        cacheGiB=whole(1),
        cacheStorageClass=TEXT,
        scratchGiB=whole(1),
        sharedMemoryMiB=whole(1),
        startupSeconds=whole(10),
        drain=section(pauseSeconds=whole(0), graceSeconds=whole(1)),
        autoscaling=section(
            kind=one_of(*kinds),
            minReplicas=whole(1),
            maxReplicas=whole(1),
            targetCpu=whole(1, 100),
            lag=whole(1),
            pollingSeconds=whole(1),
            cooldownSeconds=whole(0, 3600),
        ),
        disruptionBudget=section(enabled=FLAG, maxUnavailable=SHARE),
        update=section(
            type=one_of(*updates.get(name, ("RollingUpdate", "Recreate"))), maxSurge=SHARE, maxUnavailable=SHARE
        ),
        affinity=FREE,
        topologySpread=LISTED,
        runtimeClassName=TEXT,
        kueueQueue=TEXT,
        config={"$ref": "#/definitions/config"},
        extraEnv=LISTED,
        extraVolumes=LISTED,
        extraVolumeMounts=LISTED,
        podLabels=TEXTS,
        podAnnotations=TEXTS,
        networkPolicy=section(ingress=LISTED, egress=LISTED),
        **PLACEMENT,
    )


def values() -> Schema:
    """Return the schema of values.yaml."""
    properties: JsonObject = {
        "global": section(
            imageRegistry=TEXT, imagePullSecrets=NAMES, imagePullPolicy=one_of("IfNotPresent", "Always", "Never")
        ),
        "fullnameOverride": {"type": "string", "pattern": r"^([a-z]([-a-z0-9]*[a-z0-9])?)?$", "maxLength": 40},
        "commonLabels": TEXTS,
        "pool": {"type": "string", "pattern": r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"},
        "config": {"$ref": "#/definitions/config"},
        "defaults": service("defaults"),
        **{name: service(name) for name in SERVICES},
        "api": section(
            service=section(
                type=one_of("ClusterIP", "NodePort", "LoadBalancer"), annotations=TEXTS, loadBalancerSourceRanges=NAMES
            )
        ),
        "auth": section(existingSecret=SECRET),
        "tls": section(
            enabled=FLAG,
            existingSecret=SECRET,
            extraNames=NAMES,
            certManager=section(
                enabled=FLAG,
                issuer=section(name=TEXT, kind=one_of("Issuer", "ClusterIssuer"), group=TEXT),
                duration={"type": "string", "pattern": "^[0-9]+h$"},
            ),
            api=section(existingSecret=SECRET, clientCaSecret=SECRET),
        ),
        "trust": section(existingSecret=SECRET),
        "externalRedis": section(address=ADDRESS, database=whole(0), tls=FLAG, existingSecret=SECRET, username=USER),
        "externalStorage": section(
            endpoint=ADDRESS, bucket={"type": "string", "minLength": 3}, region=TEXT, secure=FLAG, existingSecret=SECRET
        ),
        "sources": section(existingSecret=SECRET, hub=section(enabled=FLAG, existingSecret=SECRET)),
        "valkey": section(
            image=IMAGE,
            maxMemoryMiB=whole(16),
            resources=RESOURCES,
            persistence=PERSISTENCE,
            existingSecret=SECRET,
            **PLACEMENT,
        ),
        "minio": section(
            image=IMAGE,
            bucket={"type": "string", "minLength": 3},
            resources=RESOURCES,
            persistence=PERSISTENCE,
            existingSecret=SECRET,
            **PLACEMENT,
        ),
        "networkPolicy": section(
            enabled=FLAG,
            **dict.fromkeys(("clients", "monitoring", "keda", "dns", "externalRedis", "externalStorage"), LISTED),
        ),
        "monitoring": section(
            serviceMonitor=section(enabled=FLAG, interval={"type": "string", "pattern": "^[0-9]+[sm]$"}, labels=TEXTS),
            rules=section(enabled=FLAG, labels=TEXTS),
            dashboards=section(enabled=FLAG, labels=TEXTS, annotations=TEXTS),
        ),
        "serviceAccount": section(create=FLAG, name=TEXT, annotations=TEXTS),
        "tests": section(enabled=FLAG, job=FLAG, jobSeconds=whole(10)),
        "extraObjects": LISTED,
    }
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the Quatrain chart; made by helm/generate.py",
        "definitions": {"config": config()},
        **section(**properties),
    }
