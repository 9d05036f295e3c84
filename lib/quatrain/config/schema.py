"""The configuration model: one section per concern, each field with its unit, default and reason.

Every process reads the same model and uses the sections that concern it, so one YAML file can serve a whole stack.
Fields marked `secret` are masked by `--print-config` and may be given as `QUATRAIN_SECTION__KEY_FILE=PATH`.
"""

import os
import socket
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, model_validator
from pydantic.config import JsonDict

SECRET: JsonDict = {"secret": True}


def _process_id() -> str:
    return f"{socket.gethostname()}-{os.getpid()}"


def _launched(name: str, otherwise: int) -> int:
    """Return what torchrun, or a launcher like it, sets for the processes that it starts."""
    text = os.environ.get(name, "")
    return int(text) if text.isdecimal() else otherwise


def _launched_at() -> str:
    host, port = os.environ.get("MASTER_ADDR", ""), os.environ.get("MASTER_PORT", "")
    return f"{host}:{port}" if host and port else ""


def _split_commas(value: object) -> object:
    if isinstance(value, str):
        return tuple(part.strip() for part in value.split(",") if part.strip())
    return value


Addresses = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
BucketName = Annotated[
    str, StringConstraints(pattern=r"^[a-z0-9]+(?:-+[a-z0-9]+|\.[a-z0-9]+)*$", min_length=3, max_length=63)
]
Packages = Annotated[tuple[str, ...], BeforeValidator(_split_commas)]
Buckets = Annotated[tuple[BucketName, ...], BeforeValidator(_split_commas)]


class Section(BaseModel):
    """Base of all sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)


class ServerConfig(Section):
    """The gRPC server of the process."""

    host: str = Field(default="127.0.0.1", description="address to bind; loopback unless told otherwise")
    port: int = Field(default=0, ge=0, le=65535, description="gRPC port; 0 takes a free one")
    health_port: int | None = Field(
        default=None,
        ge=0,
        le=65535,
        description="second, always plaintext port with health only, for probes; null: none",
    )
    metrics_port: int | None = Field(default=None, ge=0, le=65535, description="HTTP port of /metrics; null: none")
    max_message_mib: int = Field(default=64, ge=1, le=1024, description="largest message in MiB, both ways")
    port_file: Path | None = Field(
        default=None, description="written once the process serves: JSON with port, health_port, metrics_port"
    )
    shutdown_grace: float = Field(default=10.0, ge=0, description="seconds that calls in flight get after SIGTERM")
    max_connection_age: float = Field(
        default=300.0,
        gt=0,
        description="seconds after which clients reconnect (and look addresses up again); calls go on",
    )
    insecure: bool = Field(
        default=False,
        description="serve without TLS on an address that is not loopback: only where the network itself is closed",
    )


class AuthConfig(Section):
    """The callers of the public API; the orchestrator reads this section."""

    tokens_file: Path | None = Field(
        default=None,
        description="YAML or JSON list of hashed tokens (`quatrain token create`), read again when it changes; "
        "null: no tokens, loopback only",
    )


class TlsConfig(Section):
    """Certificates (PEM files, read again when they change): mutual TLS between the services, TLS of the public API."""

    cert: Path | None = Field(
        default=None, description="certificate chain of this process, as server and as client; null: no TLS"
    )
    key: Path | None = Field(default=None, description="its private key, unencrypted")
    ca: Path | None = Field(
        default=None, description="authorities of the services' certificates, of this deployment alone"
    )
    server_name: str = Field(
        default="quatrain",
        description="DNS name that every service's certificate carries, since services are called by address; empty: "
        "that of the address",
    )
    api_cert: Path | None = Field(default=None, description="certificate chain of the public API; null: `tls.cert`")
    api_key: Path | None = Field(default=None, description="private key of the public API; null: `tls.key`")
    api_client_ca: Path | None = Field(
        default=None, description="authorities whose certificates clients of the public API must show; null: none asked"
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = [self.cert, self.key, self.ca]
        if any(given) and not all(given):
            raise ValueError("cert, key and ca belong together: give all three or none")
        if (self.api_cert is None) != (self.api_key is None):
            raise ValueError("api_cert and api_key belong together: give both or none")
        if self.api_client_ca is not None and not (self.api_cert or self.cert):
            raise ValueError("api_client_ca needs a certificate of the API: give api_cert and api_key, or cert and key")
        return self


class StorageConfig(Section):
    """The object store."""

    kind: Literal["local", "s3", "memory"] = Field(
        default="local", description="local folder, S3 API (MinIO), or memory"
    )
    root: Path | None = Field(default=None, description="folder of the local store")
    endpoint: str = Field(default="", description="host:port of the S3 API")
    bucket: str = Field(default="quatrain", description="S3 bucket")
    access_key: str = Field(default="", repr=False, json_schema_extra=SECRET, description="S3 access key")
    secret_key: str = Field(default="", repr=False, json_schema_extra=SECRET, description="S3 secret key")
    secure: bool = Field(default=True, description="use TLS towards the S3 API")
    region: str = Field(default="us-east-1", description="S3 region")


class SourcesConfig(Section):
    """S3 buckets (`s3://BUCKET/KEY`) and the Hub (`hf://ORG/NAME`) that specs may name.

    What the deployment's key and token may read there is open to everybody who may submit a job.
    """

    buckets: Buckets = Field(
        default=(), description="buckets that specs may name, separated by commas; never the deployment's own"
    )
    endpoint: str = Field(default="", description="host:port of their S3 API; empty: that of storage, where it is S3")
    access_key: str = Field(
        default="", repr=False, json_schema_extra=SECRET, description="S3 access key; empty with no endpoint: storage's"
    )
    secret_key: str = Field(default="", repr=False, json_schema_extra=SECRET, description="S3 secret key")
    secure: bool = Field(default=True, description="use TLS towards sources.endpoint")
    region: str = Field(default="us-east-1", description="S3 region of sources.endpoint")
    max_model_bytes: int = Field(default=20 * 2**30, ge=1, description="most bytes of a model folder that is read")
    max_data_bytes: int = Field(default=2**30, ge=1, description="most bytes of a data file that is read")
    hub: bool = Field(default=False, description="read `hf://` names from a Hugging Face Hub; `quatrain up` sets it")
    hub_endpoint: str = Field(default="", description="URL of the Hub or of a mirror; empty: the public one")
    hub_token: str = Field(
        default="", repr=False, json_schema_extra=SECRET, description="token for private and gated repositories"
    )
    hub_cache_dir: Path | None = Field(default=None, description="folder of the Hub's files; null: beside the models")
    hub_cache_bytes: int = Field(default=20 * 2**30, ge=0, description="size that this folder is kept under, in bytes")
    hub_offline: bool = Field(default=False, description="read only what this folder has, without asking the Hub")
    hub_seconds: float = Field(default=1800.0, gt=0, description="seconds that reading one name may take")


class QueueConfig(Section):
    """The rollout queue."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        repr=False,
        json_schema_extra=SECRET,
        description="redis://[:password@]host:port/db, or memory:// inside one process",
    )


class TelemetryConfig(Section):
    """Logs."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least level that is logged"
    )
    format: Literal["console", "json"] = Field(
        default="console", description="for people or for a log store; always stderr"
    )


class ComputeConfig(Section):
    """Device and local model cache."""

    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: cuda where there is one")
    threads: int = Field(default=0, ge=0, description="CPU threads of the tensor library; 0 leaves its default")
    stuck_after: float = Field(
        default=900.0,
        gt=0,
        description="seconds without progress of a computation (a token, a microbatch, a whole load or save) after "
        "which the process counts as hung and ends, so that it is started again",
    )
    cache_dir: Path | None = Field(default=None, description="folder of verified model copies; null: a temporary one")
    cache_bytes: int = Field(default=20 * 2**30, ge=0, description="size that the cache is kept under, in bytes")


class GenerationConfig(Section):
    """The generation service."""

    # The table of engines: each name is a module of quatrain.generation.engines.
    engine: Literal["transformers", "fake"] = Field(default="transformers", description="inference engine")
    job_slots: int = Field(default=1, ge=1, description="jobs whose policies fit at the same time; so many run")
    fake_latency: float = Field(default=0.0, ge=0, description="seconds that the fake engine takes for a call")
    queue_size: int = Field(
        default=8, ge=1, description="calls that may wait for the model; more are refused as overloaded"
    )


class RewardConfig(Section):
    """The reward service."""

    memory_bytes: int = Field(default=8 * 2**30, ge=0, description="budget of loaded reward models in bytes")
    packages: Packages = Field(
        default=(),
        description="installed packages whose functions specs may name, separated by commas; empty: all but the "
        "standard library",
    )
    allow_code: bool = Field(
        default=False, description="run uploaded reward functions, confined as docs/security.md says"
    )
    code_memory_bytes: int = Field(
        default=4 * 2**30, ge=2**28, description="address space of an uploaded reward function's process in bytes"
    )
    code_network: Literal["allow", "deny"] = Field(
        default="deny",
        description="whether uploaded reward functions may open sockets; where deny cannot be enforced nothing starts",
    )
    queue_size: int = Field(
        default=8, ge=1, description="calls that may wait for the model; more are refused as overloaded"
    )


class ReferenceConfig(Section):
    """The reference service."""

    memory_bytes: int = Field(default=32 * 2**30, ge=0, description="budget of loaded reference models in bytes")
    queue_size: int = Field(
        default=8, ge=1, description="calls that may wait for the model; more are refused as overloaded"
    )


class LearnerConfig(Section):
    """The learner, and the addresses of the learners."""

    id: str = Field(default_factory=_process_id, min_length=1, description="name of this learner in events and logs")
    backend: Literal["torch", "fake"] = Field(
        default="torch", description="what trains; fake needs no model and is for tests"
    )
    ranks: int = Field(
        default_factory=lambda: _launched("WORLD_SIZE", 1),
        ge=1,
        description="processes that one learner consists of and that share its work, each with the whole model",
    )
    rank: int = Field(
        default_factory=lambda: _launched("RANK", 0),
        ge=0,
        description="number of this process among them: 0 serves, the others follow it",
    )
    rendezvous: str = Field(
        default_factory=_launched_at,
        description="host:port at which rank 0 awaits the others; without password and TLS, for closed networks only",
    )
    rank_timeout: float = Field(
        default=60.0,
        gt=0,
        description="seconds without a heartbeat of a rank after which all ranks end, to be started again",
    )
    owner_timeout: float = Field(
        default=60.0, gt=0, description="seconds without a sign of the owner before it closes itself"
    )
    targets: Addresses = Field(
        default=("127.0.0.1:50054",),
        description="read by the orchestrator: learners as host:port,... or one dns:///name:port or targets-file:/PATH",
    )


class OrchestratorConfig(Section):
    """The job API and the job loop."""

    id: str = Field(default_factory=_process_id, min_length=1, description="name of this replica in events and logs")
    generation: str = Field(default="127.0.0.1:50051", description="target of the generation pool")
    reward: str = Field(default="127.0.0.1:50052", description="target of the reward service")
    reference: str = Field(default="127.0.0.1:50053", description="target of the reference service")
    pool: str = Field(default="default", min_length=1, description="generation pool whose jobs it takes")
    lease: float = Field(
        default=3.0, gt=0, description="seconds without renewal after which a job's owner counts as gone"
    )
    poll: float = Field(default=0.5, gt=0, description="seconds between searches for jobs that need an owner")
    local_files: bool = Field(default=False, description="accept absolute file:/// URIs in specs (process mode)")
    sweep: float = Field(
        default=30.0, gt=0, description="seconds between searches for data of released checkpoints and deleted jobs"
    )
    max_upload_bytes: int = Field(default=20 * 2**30, ge=1, description="most bytes of an uploaded file")
    max_step_samples: int = Field(
        default=2**16,
        ge=1,
        description="samples that a job may have in flight (those of a PPO step with the stale ones ahead of it, "
        "of an evaluation, of an offset measurement); specs that ask for more are refused",
    )
    max_step_tokens: int = Field(
        default=2**25,
        ge=1,
        description="prompt and completion tokens that these samples may have at their longest",
    )
    max_chunk_samples: int = Field(
        default=2**12,
        ge=1,
        description="samples that a chunk may have: one call to each service, one answer of a rollout worker to Redis",
    )


class RolloutConfig(Section):
    """The rollout worker."""

    id: str = Field(default_factory=_process_id, min_length=1, description="consumer name in the queue")
    pool: str = Field(default="default", min_length=1, description="generation pool whose tasks it takes")
    concurrency: int = Field(default=2, ge=1, description="tasks that run at once")
    idle: float = Field(
        default=6.0, gt=0, description="seconds without renewal after which a task is given to another worker"
    )
    inline_bytes: int = Field(
        default=64 * 1024,
        ge=0,
        description="a sample whose result takes more goes through the object store; less saves memory of Redis",
    )
    generation: str = Field(default="127.0.0.1:50051", description="target of the generation pool")
    reward: str = Field(default="127.0.0.1:50052", description="target of the reward service")
    reference: str = Field(default="127.0.0.1:50053", description="target of the reference service")


class ProcessConfig(Section):
    """All sections."""

    server: ServerConfig = ServerConfig()
    auth: AuthConfig = AuthConfig()
    tls: TlsConfig = TlsConfig()
    storage: StorageConfig = StorageConfig()
    sources: SourcesConfig = SourcesConfig()
    queue: QueueConfig = QueueConfig()
    telemetry: TelemetryConfig = TelemetryConfig()
    compute: ComputeConfig = ComputeConfig()
    generation: GenerationConfig = GenerationConfig()
    reward: RewardConfig = RewardConfig()
    reference: ReferenceConfig = ReferenceConfig()
    learner: LearnerConfig = LearnerConfig()
    orchestrator: OrchestratorConfig = OrchestratorConfig()
    rollout: RolloutConfig = RolloutConfig()
