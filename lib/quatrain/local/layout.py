"""Which processes make up a local stack, and how each is configured. The same entry points as in containers."""

import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from quatrain.local.home import Endpoint
from quatrain.local.redis_server import redis_command

MODULES = {
    "generation": "quatrain.generation",
    "reward": "quatrain.reward",
    "reference": "quatrain.reference",
    "learner": "quatrain.learner",
    "orchestrator": "quatrain.orchestrator",
    "rollout": "quatrain.orchestrator.rollout",
}
# Each pass of a model takes again the memory that the last one freed. Without these settings glibc returns it to the
# system in between, and page faults cost the learner 6 % of its time. One arena is enough, because the model runs in a
# thread of its own.
KEEP_MEMORY = {
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(512 << 20),
}
JOB_SLOTS = "QUATRAIN_GENERATION__JOB_SLOTS"
RANKS = "QUATRAIN_LEARNER__RANKS"
KINDS = ("generation", "reward", "reference", "learner", "orchestrator", "rollout")


@dataclass(frozen=True)
class ProcessPlan:
    """One process: its name (`generation-0`), kind, command and environment. `port` 0 means that it serves nothing."""

    name: str
    kind: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    port: int
    port_file: Path | None


@dataclass(frozen=True)
class StackLayout:
    """The folders and files of a local stack, and its processes."""

    home: Path

    @property
    def logs(self) -> Path:
        """One log file a process."""
        return self.home / "logs"

    @property
    def targets_file(self) -> Path:
        """Addresses of all services by kind; their callers read it again when it changes."""
        return self.home / "run" / "targets.json"

    def make_folders(self) -> None:
        """Create the folders that are missing."""
        for name in ("logs", "run", "redis", "store", "cache"):
            (self.home / name).mkdir(parents=True, exist_ok=True)

    def redis(self, port: int) -> ProcessPlan:
        """Return the process of the bundled Redis."""
        command = tuple(redis_command(self.home / "redis", port))
        return ProcessPlan("redis", "redis", command, dict(os.environ), port, None)

    def process(self, kind: str, index: int, port: int, redis_url: str, job_slots: int = 0) -> ProcessPlan:
        """Return a Quatrain process. `job_slots` is for generation; 0 leaves it to the environment."""
        name = f"{kind}-{index}"
        port_file = self.home / "run" / f"{name}.json"
        environment = dict(os.environ) | self._storage() | self._compute(kind, name)
        environment |= {
            "QUATRAIN_SERVER__HOST": "127.0.0.1",
            "QUATRAIN_SERVER__PORT": str(port),
            "QUATRAIN_SERVER__PORT_FILE": str(port_file),
            "QUATRAIN_QUEUE__URL": redis_url,
            "QUATRAIN_REWARD__ALLOW_CODE": "true",
            "QUATRAIN_LEARNER__ID": name,
            "QUATRAIN_LEARNER__TARGETS": self._target("learner"),
            "QUATRAIN_ORCHESTRATOR__ID": name,
            "QUATRAIN_ORCHESTRATOR__LOCAL_FILES": "true",
            "QUATRAIN_ROLLOUT__ID": name,
        }
        if job_slots:
            environment[JOB_SLOTS] = str(job_slots)
        if sys.platform != "linux":
            # Only Linux can keep the network from reward functions, and here people run functions of their own.
            environment.setdefault("QUATRAIN_REWARD__CODE_NETWORK", "allow")
        environment.setdefault("QUATRAIN_SOURCES__HUB", "true")
        for service in ("generation", "reward", "reference"):
            environment[f"QUATRAIN_ORCHESTRATOR__{service.upper()}"] = self._target(service)
            environment[f"QUATRAIN_ROLLOUT__{service.upper()}"] = self._target(service)
        command = (sys.executable, "-m", MODULES[kind])
        return ProcessPlan(name, kind, command, environment, port, port_file)

    def rank(self, learner: ProcessPlan, rank: int, port: int) -> ProcessPlan:
        """Return one process of a learner of several that meet at `port`. Rank 0 has the learner's name and port."""
        environment = {**learner.environment, "QUATRAIN_LEARNER__RENDEZVOUS": f"127.0.0.1:{port}"}
        if rank == 0:
            return replace(learner, environment=environment)
        name = f"{learner.name}-rank-{rank}"
        port_file = self.home / "run" / f"{name}.json"
        environment |= self._compute("learner", name) | {
            "QUATRAIN_SERVER__PORT": "0",
            "QUATRAIN_SERVER__PORT_FILE": str(port_file),
            "QUATRAIN_LEARNER__RANK": str(rank),
        }
        return ProcessPlan(name, "learner-rank", learner.command, environment, 0, port_file)

    def endpoint(self, port: int) -> Endpoint:
        """Return where clients find the API, with the token file and certificates that the environment names."""
        environment = os.environ
        own = environment.get("QUATRAIN_TLS__API_CERT")
        tls = own or environment.get("QUATRAIN_TLS__CERT")
        ca = environment.get("QUATRAIN_CA") or (None if own else environment.get("QUATRAIN_TLS__CA"))
        return Endpoint(
            api=f"https://127.0.0.1:{port}" if tls else f"127.0.0.1:{port}",
            token_file=environment.get("QUATRAIN_TOKEN_FILE") or None,
            ca_file=(ca or None) if tls else None,
        )

    def _target(self, kind: str) -> str:
        return f"targets-file:{self.targets_file}#{kind}"

    def _storage(self) -> dict[str, str]:
        """Return the settings of the object store: a folder, or the S3 that S3_ENDPOINT names."""
        endpoint = os.environ.get("S3_ENDPOINT")
        if not endpoint:
            return {"QUATRAIN_STORAGE__KIND": "local", "QUATRAIN_STORAGE__ROOT": str(self.home / "store")}
        secure = endpoint.startswith("https://")
        return {
            "QUATRAIN_STORAGE__KIND": "s3",
            "QUATRAIN_STORAGE__ENDPOINT": endpoint.removeprefix("https://").removeprefix("http://"),
            "QUATRAIN_STORAGE__SECURE": str(secure).lower(),
            "QUATRAIN_STORAGE__BUCKET": os.environ.get("S3_BUCKET", "quatrain"),
            "QUATRAIN_STORAGE__ACCESS_KEY": os.environ.get("S3_ACCESS_KEY", ""),
            "QUATRAIN_STORAGE__SECRET_KEY": os.environ.get("S3_SECRET_KEY", ""),
        }

    def _compute(self, kind: str, name: str) -> dict[str, str]:
        """Return a fixed number of threads, because results depend on it, and a cache of the process's own, because
        processes come and go."""
        threads = os.environ.get("QUATRAIN_COMPUTE__THREADS", str(min(2, os.cpu_count() or 1)))
        return {
            "QUATRAIN_COMPUTE__THREADS": threads,
            "QUATRAIN_COMPUTE__CACHE_DIR": str(self.home / "cache" / name),
            # Idle OpenMP threads must sleep: by default they spin (GNU's for milliseconds) and take the cores from the
            # other processes, which made the learner of a small model ten times slower on a busy machine. The first
            # name is for GNU's OpenMP, which torch's wheels bring, the second for Intel's and LLVM's.
            "OMP_NUM_THREADS": threads,
            "OMP_WAIT_POLICY": "passive",
            "KMP_BLOCKTIME": "0",
            **KEEP_MEMORY,
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_OFFLINE": "1",
            "PYTHONUNBUFFERED": "1",
        }
