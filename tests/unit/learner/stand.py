"""A learner service with fake trainers that wait and fail when told to, a store that can be away, and a clock."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.unit.learner.stages import sealed, stage_request
from tests.unit.text.folders import symbol_tokenizer, write_folder

from quatrain.digests import sha256_hex
from quatrain.errors import Unavailable
from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends import Check, Inputs, StepResult, Trainer
from quatrain.learner.backends.fake import FakeTrainer
from quatrain.learner.requests import OpenRequest
from quatrain.learner.service import Host, LearnerService
from quatrain.process.model_thread import ModelThread
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import PPO
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.storage.memory import MemoryStore

Act = Callable[["Stand"], Awaitable[Any]]


class Halting:
    """Fake trainers whose step waits at `gate` and, if told so, fails."""

    device = "none"

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.steps = 0

    def open(self, request: OpenRequest, inputs: Inputs) -> Trainer:
        return _HaltingTrainer(request, self)


class _HaltingTrainer(FakeTrainer):
    def __init__(self, request: OpenRequest, backend: Halting) -> None:
        super().__init__(request)
        self._backend = backend

    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        self._backend.steps += 1
        while not self._backend.gate.wait(0.01):
            check()
        if self._backend.error is not None:
            raise self._backend.error
        return super().train(step, batch, check)


class FlakyStore(MemoryStore):
    """Refuses writes while `away`."""

    away = False

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.away:
            raise Unavailable("store is away")
        return super().put_if_absent(key, data)


@dataclass
class Stand:
    """A service with everything around it."""

    service: LearnerService
    backend: Halting
    store: FlakyStore
    clock: list[float]
    request: OpenRequest

    def batch(self, step: int) -> ObjectRef:
        data = sealed(step)
        key = f"jobs/job-1/ppo/batches/{step}.parquet"
        self.store.put_if_absent(key, data)
        return ObjectRef(key, sha256_hex(data), len(data))


def with_stand(tmp_path: Path, act: Act, **changes: Any) -> Stand:
    """Runs `act` on the event loop of a fresh service."""
    store = FlakyStore()
    source = tmp_path / "source"
    source.mkdir()
    (source / "config.json").write_text("{}")
    write_folder(source, symbol_tokenizer(), {"eos_token": "f"})
    folder = upload_model_folder(store, source)
    model = ModelRef(f"sha256:{folder.digest}", folder.digest)
    clock = [100.0]
    backend = Halting()
    artifacts = Artifacts(store, FolderCache(store, tmp_path / "cache", 1 << 30), tmp_path / "scratch")
    thread = ModelThread(8)
    service = LearnerService(Host("learner-0", 60.0), backend, artifacts, thread, clock=lambda: clock[0], **changes)
    stand = Stand(service, backend, store, clock, stage_request(PPO, {}, model=model))

    async def run() -> None:
        async with asyncio.timeout(20):
            await act(stand)

    try:
        asyncio.run(run())
    finally:
        backend.gate.set()
        thread.close(wait=5.0)
    return stand
