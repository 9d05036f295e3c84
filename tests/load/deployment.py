"""A stack for measuring: real MinIO and Redis, an engine that only waits, and one small job in many sizes."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from tests.chaos.stack import SETTINGS, ChaosStack, Flavour, running_chaos_stack
from tests.e2e.tasks import Spec, changed, write_jsonl
from tests.integration.orchestrator.world import write_model
from tests.servers.s3 import run_minio

from quatrain.client import Client
from quatrain.storage.s3 import S3Store

BUCKET = "load"
PROMPT_TOKENS = 16
COMPLETION_TOKENS = 128
REWARD = '''"""As cheap as a reward can be: what is measured is the way there and back."""


def length(completion_ids, **_):
    return [float(len(ids)) for ids in completion_ids]
'''


@dataclass(frozen=True)
class Size:
    """Replicas of each kind, seconds that the engine waits for a chunk, and tasks that a worker does at once."""

    generation: int = 1
    reward: int = 1
    reference: int = 1
    learner: int = 1
    orchestrator: int = 1
    rollout: int = 1
    latency: float = 0.0
    concurrency: int = 8
    job_slots: int = 1

    def flavour(self) -> Flavour:
        """The stack of this size."""
        kinds = ("generation", "reward", "reference", "learner", "orchestrator", "rollout")
        settings = SETTINGS | {
            "QUATRAIN_GENERATION__FAKE_LATENCY": str(self.latency),
            "QUATRAIN_GENERATION__JOB_SLOTS": str(self.job_slots),
            "QUATRAIN_GENERATION__QUEUE_SIZE": "64",
            "QUATRAIN_REWARD__QUEUE_SIZE": "64",
            "QUATRAIN_REFERENCE__QUEUE_SIZE": "64",
            "QUATRAIN_ROLLOUT__CONCURRENCY": str(self.concurrency),
            "QUATRAIN_ROLLOUT__IDLE": "6.0",
            "QUATRAIN_ORCHESTRATOR__LEASE": "3.0",
            "QUATRAIN_TELEMETRY__LEVEL": "warning",
        }
        return Flavour("load", replicas={kind: getattr(self, kind) for kind in kinds}, settings=settings, faults=False)


@dataclass(frozen=True)
class Deployment:
    """A running stack, a client of its first orchestrator, and the job that it runs in many sizes."""

    stack: ChaosStack
    client: Client
    spec: Spec

    def pids(self) -> dict[str, int]:
        """Name to process id, Redis included."""
        return {process.name: process.pid for process in self.stack.processes.values()}


@contextmanager
def deployed(home: Path, size: Size, *, local_store: bool = False) -> Iterator[Deployment]:
    """A stack of a size; `local_store`: a folder in the place of MinIO."""
    home.mkdir(parents=True, exist_ok=True)
    flavour = size.flavour()
    if local_store:
        with _running(home, flavour) as deployment:
            yield deployment
        return
    (home / "minio").mkdir()
    with run_minio(home / "minio") as server:
        S3Store(server.address(BUCKET)).ensure_bucket(create=True)
        with _running(home, replace(flavour, storage=server.environment(BUCKET))) as deployment:
            yield deployment


@contextmanager
def _running(home: Path, flavour: Flavour) -> Iterator[Deployment]:
    with running_chaos_stack(home, flavour) as stack:
        target = f"127.0.0.1:{stack.of_kind('orchestrator')[0].port}"
        with Client(target) as client:
            yield Deployment(stack, client, write_spec(home / "data"))


def write_spec(folder: Path) -> Spec:
    """PPO alone, completions of exactly 128 tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "base", eos="h", symbols="abcdefgh", positions=1024)
    draw = random.Random(5)
    prompts = [{"prompt": "".join(draw.choice("abcdefg") for _ in range(PROMPT_TOKENS))} for _ in range(512)]
    write_jsonl(folder / "prompts.jsonl", prompts)
    (folder / "rewards.py").write_text(REWARD, encoding="utf-8")
    return {
        "name": "load",
        "seed": 7,
        "deterministic": True,
        "model": {"uri": f"file://{folder / 'base'}"},
        "reward": {"functions": [{"path": f"{folder / 'rewards.py'}:length"}]},
        "ppo": {
            "prompts": str(folder / "prompts.jsonl"),
            "steps": 10,
            "prompts_per_step": 64,
            "chunk_size": 16,
            "generation": {"max_new_tokens": COMPLETION_TOKENS, "ignore_eos": True},
        },
        "checkpoint": {"every_steps": 100},
    }


def sized(spec: Spec, **changes: Any) -> Spec:
    """The spec with other values, named as `ppo__steps=20`."""
    return changed(spec, **changes)


def seconds(time: str) -> float:
    """An event's time as epoch seconds."""
    return datetime.fromisoformat(time).timestamp()
