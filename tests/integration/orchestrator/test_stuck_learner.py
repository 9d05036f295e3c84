"""A learner whose model thread hangs while its event loop lives: it is left, and the job goes on with another one."""

import threading
from pathlib import Path

import pytest
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.learner.artifacts import Artifacts
from quatrain.learner.backends import Check, Inputs, StepResult, Trainer
from quatrain.learner.backends.fake import FakeTrainer
from quatrain.learner.requests import OpenRequest
from quatrain.learner.service import Host, LearnerService
from quatrain.process.model_thread import ModelThread
from quatrain.rpc import streams
from quatrain.storage.folders import FolderCache

HANGS_AT = 3


class Hanging:
    """Trainers that never return from a step."""

    device = "none"

    def __init__(self) -> None:
        self.released = threading.Event()

    def open(self, request: OpenRequest, inputs: Inputs) -> Trainer:
        return _HangingTrainer(request, self.released)


class _HangingTrainer(FakeTrainer):
    def __init__(self, request: OpenRequest, released: threading.Event) -> None:
        super().__init__(request)
        self._released = released

    def train(self, step: int, batch: bytes | None, check: Check) -> StepResult:
        if step == HANGS_AT:
            self._released.wait(60.0)
        return super().train(step, batch, check)


def hang(world: World, backend: Hanging, root: Path) -> None:
    """Learner 0 hangs from now on; learner 1 is as it was."""
    artifacts = Artifacts(world.store, FolderCache(world.store, root / "cache", 2**30), root / "scratch")
    thread = ModelThread(8, stuck_after=0.5)
    world.learners[0]._service = LearnerService(Host("learner-0", 60.0), backend, artifacts, thread)


def test_a_learner_that_hangs_is_left_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streams, "HEARTBEAT_SECONDS", 0.1)
    backend = Hanging()

    async def scenario() -> None:
        async with deployment(tmp_path, learners=2) as world:
            hang(world, backend, tmp_path / "hanging")
            await world.submit(world.spec())
            view = await world.end_of(seconds=40.0)
            backend.released.set()

            assert view.state == "SUCCEEDED", view.error
            (failed,) = world.events(kind="attempt_failed")
            address = world.learner_addresses[0]
            assert f"learner {address} lost at ppo step {HANGS_AT}" in failed.data["message"]
            assert "the model thread has made no progress for" in failed.data["message"]
            assert world.learners[1].opened == ["job-1"]

    try:
        run(scenario)
    finally:
        backend.released.set()


def test_the_opening_of_a_large_model_is_bounded_by_signs_of_life_and_not_by_minutes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec(steps=1))
            assert (await world.end_of()).state == "SUCCEEDED"
            (patience,) = world.learners[0].patience
            assert patience > 12 * 3600

    run(scenario)
