"""What people are told of a job: what it does while that takes long, and what its log cannot say."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.faults import FlakyStore, soon
from tests.integration.orchestrator.test_api import serving
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.joblog.payloads import PHASE
from quatrain.learner.backends import Check, StepResult
from quatrain.learner.backends.fake import FakeTrainer
from quatrain.orchestrator.job import await_rollouts, phase
from quatrain.orchestrator.job.run import UNAVAILABLE
from quatrain.v1 import job_pb2


@pytest.fixture
def soon_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Phases are told at once."""
    monkeypatch.setattr(await_rollouts, "POLL_SECONDS", 0.02)
    monkeypatch.setattr(phase, "FIRST_SECONDS", 0.01)
    monkeypatch.setattr(phase, "FIRST_SECONDS_OF_A_STEP", 0.01)
    monkeypatch.setattr(phase, "MAX_PAUSE_SECONDS", 0.05)


def phases(world: World) -> list[str]:
    said = [event.data for event in world.events(kind="condition")]
    return [data["message"] for data in said if data["name"] == PHASE]


def whole_job(world: World) -> dict[str, Any]:
    """All three stages, an offset of 6 completions, an evaluation."""
    rows = [{"prompt": "ab", "completion": "cd"}, {"prompt": "ba", "completion": "dc"}] * 2
    pairs = [{"prompt": "ab", "chosen": "cd", "rejected": "dd"}, {"prompt": "ba", "chosen": "cc", "rejected": "d"}] * 2
    spec = world.spec(eval_prompts=put_rows(world.store, [{"prompt": "ac"}, {"prompt": "ca"}]), steps=2)
    return {
        **spec,
        "sft": {"data": put_rows(world.store, rows)},
        "reward": {"data": put_rows(world.store, pairs), "center_samples": 6, "held_out_share": 0.5},
    }


@pytest.mark.usefixtures("soon_told")
def test_a_store_that_was_away_while_a_phase_was_told_is_said_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store) as world:
            world.engine.before = lambda: time.sleep(0.5)
            await world.submit(world.spec(steps=1))
            await world.until(lambda: phases(world) != [], "a phase")
            store.go(1, "put_if_absent", "/events/")
            await soon(lambda: bool(store.refused), "no event was written while the store was away")
            world.engine.before = lambda: None
            view = await world.end_of()
            assert (view.state, view.conditions) == ("SUCCEEDED", {})
            said = [event.data for event in world.events(kind="condition") if event.data["name"] == UNAVAILABLE]
            assert len(said) == 2
            assert "the store is away (put_if_absent" in said[0]["message"]
            assert said[1]["message"] is None

    run(scenario)


@pytest.mark.usefixtures("soon_told")
def test_what_takes_long_is_told_with_its_progress(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.engine.before = lambda: time.sleep(0.15)
            await world.submit(whole_job(world))
            view = await world.end_of()
            said = phases(world)
            assert view.offset is not None
            assert view.offset.samples == 6
            assert any(text.startswith("measuring the offset of the reward: ") for text in said)
            assert {text.partition(" of 6 ")[2] for text in said if "offset" in text} == {"completions"}
            assert any(text.startswith("collecting the rollouts of step 1: ") for text in said)
            assert any(text.startswith("evaluating the policy of step 2: ") for text in said)
            assert any("of 2 completions" in text for text in said if text.startswith("evaluating"))
            assert view.phase == "", "the end of the job ends it"
            assert PHASE not in view.conditions

    run(scenario)


@pytest.mark.usefixtures("soon_told")
@pytest.mark.parametrize(
    ("method", "text"),
    [
        ("Publish", "publishing policy version 1: "),
        ("Export", "exporting the model of ppo: "),
        ("Save", "saving the checkpoint of step 2: "),
        ("Step", "training step 1: "),
    ],
)
def test_a_slow_learner_is_told(tmp_path: Path, method: str, text: str) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:

            async def slow() -> None:
                await asyncio.sleep(0.3)

            world.learners[0].hooks[method, 1] = slow
            await world.submit(world.spec())
            await world.end_of()
            told = [each for each in phases(world) if each.startswith(text)]
            assert told
            assert all(each.endswith(" s so far") for each in told)

    run(scenario)


@pytest.mark.usefixtures("soon_told")
def test_the_api_tells_the_phase(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world, serving(world) as api:
            await world.submit(world.spec())
            await soon(lambda: world.view().phase.startswith("collecting"), "a phase")
            answer = await api.call("GetJob", job_pb2.GetJobRequest(job_id="job-1"))
            assert answer.job.phase.startswith("collecting the rollouts of step 1: 0 of 4")
            assert dict(answer.job.conditions) == {}
            assert answer.job.attempt == 1

    run(scenario)


def test_a_job_that_cannot_be_taken_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, store=FlakyStore(), schedulers=0) as world:
            await world.submit(world.spec())
            assert isinstance(world.store, FlakyStore)
            world.store.away = lambda method, key: method == "put_if_absent" and "/events/" in key
            scheduler = world.start_scheduler("owner-0")
            async with serving(world) as api:
                await soon(lambda: "unavailable" in scheduler.conditions("job-1"), "the reason")
                answer = await api.call("GetJob", job_pb2.GetJobRequest(job_id="job-1"))
                assert answer.job.state == job_pb2.JOB_STATE_QUEUED
                assert "the store is away" in answer.job.conditions["unavailable"]
                world.store.away = lambda method, key: False
                assert (await world.end_of()).state == "SUCCEEDED"
                await soon(lambda: not scheduler.conditions("job-1"), "nothing to say any more")

    run(scenario)


def test_a_running_job_that_cannot_write_says_why(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, store=FlakyStore()) as world:
            await world.submit(world.spec())
            assert isinstance(world.store, FlakyStore)
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            world.store.away = lambda method, key: method == "put_if_absent" and "/events/" in key
            await soon(lambda: "unavailable" in world.schedulers[0].conditions("job-1"), "the reason")
            world.store.away = lambda method, key: False
            assert (await world.end_of()).state == "SUCCEEDED"
            assert world.schedulers[0].conditions("job-1") == {}

    run(scenario)


def test_the_warning_about_scores_ends_with_the_first_good_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = FakeTrainer.train
    spread = {1: 0.0, 2: 50.0, 3: 1.0, 4: 50.0}

    def with_scores(self: FakeTrainer, step: int, batch: bytes | None, check: Check) -> StepResult:
        result = train(self, step, batch, check)
        return replace(result, metrics={**result.metrics, "reward/score_std": spread[step]})

    monkeypatch.setattr(FakeTrainer, "train", with_scores)

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec(steps=4))
            view = await world.end_of()
            said = [event.data["message"] for event in world.events(kind="condition")]
            assert view.conditions == {}
            assert [text and text.partition(":")[0] for text in said] == ["all scores of step 1 are equal", None]

    run(scenario)
