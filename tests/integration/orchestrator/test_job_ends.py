"""How jobs end before their time: intents, limits, rewards that do not work."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.errors import RewardFunctionError
from quatrain.joblog import JobView


async def cancel(world: World, *, now: bool = False) -> None:
    await world.ask("cancel_requested", {"now": now, "reason": "enough"})


def test_a_graceful_cancel_ends_the_step_and_keeps_a_checkpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit({**world.spec(steps=10_000), "checkpoint": {"every_steps": 10_000}})
            await world.until(lambda: world.view().step >= 2, "step 2")
            await cancel(world)
            view = await world.end_of()
            assert (view.state, view.error) == ("CANCELLED", None)
            assert [ref.step for ref in view.checkpoints] == [view.completed["ppo"]]
            assert "CANCELLING" in [event.data["state"] for event in world.events(kind="state_changed")]
            await world.until(lambda: world.learners[0]._service.status().token is None, "the learner is free again")
            await world.until(lambda: not world.store.list("active/"), "the job stayed in the index")
            assert await world.queue.holder("job-1") is None

    run(scenario)


@pytest.mark.parametrize("now", [True, False])
def test_a_cancel_ends_a_wait_for_rollouts_that_nobody_makes(tmp_path: Path, now: bool) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit(world.spec())
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            await cancel(world, now=now)
            view = await world.end_of(seconds=5.0)
            assert view.state == "CANCELLED"
            assert view.checkpoints == []

    run(scenario)


@pytest.mark.parametrize("now", [True, False])
def test_a_cancel_ends_a_wait_for_a_learner(tmp_path: Path, now: bool) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0) as world:
            world.schedulers[0].context.learners._targets = ("127.0.0.1:9",)
            await world.submit(world.spec())
            await world.until(lambda: "learner" in world.view().conditions, "the condition")
            assert "no learner answers at 127.0.0.1:9" in world.view().conditions["learner"]
            assert world.view().state == "QUEUED"
            await cancel(world, now=now)
            assert (await world.end_of(seconds=5.0)).state == "CANCELLED"

    run(scenario)


def test_cancel_now_does_not_wait_for_the_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        hold = threading.Event()
        async with deployment(tmp_path) as world:
            world.engine.before = lambda: (hold.wait(10.0), None)[1]
            await world.submit(world.spec())
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            await cancel(world, now=True)
            view = await world.end_of(seconds=5.0)
            hold.set()
            assert (view.state, view.checkpoints) == ("CANCELLED", [])

    run(scenario)


def test_a_job_cancelled_before_it_has_an_owner_opens_no_learner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            await world.submit(world.spec())
            await cancel(world)
            world.start_scheduler()
            assert (await world.end_of()).state == "CANCELLED"
            assert world.learners[0].opened == []

    run(scenario)


def test_the_wall_time_fails_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit({**world.spec(), "limits": {"wall_time": 0.3}})
            await failed(world, "WALL_TIME", "limits.wall_time of 0.3 s has passed")

    run(scenario)


async def failed(world: World, reason: str, *parts: str) -> JobView:
    view = await world.end_of()
    assert view.state == "FAILED"
    assert view.error is not None
    assert view.error.reason == reason
    for part in parts:
        assert part in view.error.message
    await world.until(lambda: world.learners[0]._service.status().token is None, "the learner is free again")
    return view


def test_too_many_refused_samples_fail_the_job_and_stand_in_its_batch(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            world.reward.opinion = lambda batch: tuple(float("nan") for _ in batch.samples)
            view = await failed(world, "TOO_MANY_REFUSED", "4 of 4 samples of step 1", "is nan")
            assert view.sealed[1].refused == 4

    run(scenario)


def test_a_step_of_skipped_samples_fails_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            world.reward.opinion = lambda batch: tuple(None for _ in batch.samples)
            await failed(world, "EMPTY_BATCH", "4 skipped", "0 refused")

    run(scenario)


def test_a_few_skipped_and_refused_samples_are_sealed_as_such(tmp_path: Path) -> None:
    def opinion(batch: Any) -> tuple[float | None, ...]:
        return tuple(None if index else 1.0 for index, _ in enumerate(batch.samples))

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            world.reward.opinion = opinion
            view = await world.end_of()
            assert view.state == "SUCCEEDED"
            counts = [(ref.rollouts, ref.skipped, ref.refused) for ref in view.sealed.values()]
            assert counts == [(2, 2, 0)] * 3

    run(scenario)


def test_a_reward_function_that_raises_fails_the_job_naming_it(tmp_path: Path) -> None:
    calls: list[int] = []

    def opinion(batch: Any) -> tuple[float | None, ...]:
        calls.append(len(batch.samples))
        raise RewardFunctionError("reward function rewards:count raised ValueError at sample 3: no such word")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec(chunk_size=4))
            world.reward.opinion = opinion
            view = await failed(world, "REWARD_FUNCTION_FAILED", "rewards:count", "sample 3", "step 1")
            assert view.sealed == {}
            assert len(calls) == 2, "it was tried again once"

    run(scenario)


def test_services_that_disagree_on_logprobs_fail_the_job_before_its_first_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            trainer = "quatrain.learner.backends.fake.FakeTrainer.logprobs"
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(trainer, lambda self, p, c, t: [np.full(len(row), -3.0, np.float32) for row in c])
                await world.submit(world.spec())
                await failed(world, "LOGPROB_MISMATCH", "generation and learner disagree", "-1.00000 against -3.00000")

    run(scenario)


def test_a_reward_model_that_is_too_weak_fails_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("quatrain.orchestrator.stages.reward.HELD_OUT_ACCURACY", "accuracy")
                pairs = [{"prompt": "ab", "chosen": "cd", "rejected": "dc"}] * 4
                spec = world.spec()
                spec["reward"] = {"data": put_rows(world.store, pairs), "min_accuracy": 1.0}
                await world.submit(spec)
                await failed(world, "REWARD_MODEL_TOO_WEAK", "reward.min_accuracy is 1.0")

    run(scenario)
