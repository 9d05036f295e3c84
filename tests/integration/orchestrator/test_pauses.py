"""Pause and resume: in every stage and wait, over lost owners, as often as one likes, the job ends the same."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.integration.orchestrator.faults import FlakyQueue, FlakyStore
from tests.integration.orchestrator.test_learner_losses import finish, pipeline, unbroken
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.joblog import JobView
from quatrain.joblog.view import Intents


async def ask_for(world: World, kind: str) -> None:
    data = {"now": False, "reason": "lunch"} if kind == "cancel" else {"reason": "lunch"}
    await world.ask(f"{kind}_requested", data)


def pausing(world: World, then: Callable[[], Awaitable[None]] | None = None) -> Callable[[], Awaitable[None]]:
    """A hook for a call of the learner: somebody asks for a pause, and the owner has heard it before the answer."""

    async def hook() -> None:
        await ask_for(world, "pause")
        await world.until(lambda: world.view().state == "PAUSING", "PAUSING")
        if then is not None:
            await then()

    return hook


async def paused(world: World) -> JobView:
    """The view of a job that has come to rest: no owner, no learner, nothing in the queue, but in the index."""
    await world.until(lambda: world.view().state == "PAUSED", "PAUSED")
    view = world.view()
    assert (view.owner, view.reason, view.conditions) == ("", "lunch", {})
    assert [stat.key for stat in world.calm.list("active/")] == ["active/job-1"]
    await world.until(lambda: world.learners[0]._service.status().token is None, "the learner is free")
    deadline = time.monotonic() + 20.0
    while await world.queue.holder("job-1") is not None:
        assert time.monotonic() < deadline, "the hint is gone"
        await asyncio.sleep(0.02)
    assert not await world.queue.is_open("job-1")
    return view


@pytest.mark.parametrize(
    ("method", "call", "stage", "checkpoint"),
    [
        ("Step", 1, "sft", ("sft", 1)),
        ("Export", 1, "reward", ("sft", 2)),
        ("Step", 3, "reward", ("reward", 1)),
        ("Publish", 1, "reward", ("reward", 2)),
        ("Step", 5, "ppo", ("ppo", 1)),
    ],
)
def test_a_pause_in_any_stage_changes_nothing_in_the_end(
    tmp_path: Path, method: str, call: int, stage: str, checkpoint: tuple[str, int]
) -> None:
    expected = unbroken(tmp_path, "pipeline")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].hooks[method, call] = pausing(world)
            held = asyncio.create_task(finish(world, pipeline(world)))
            view = await paused(world)
            newest = view.checkpoints[-1]
            assert (view.stage, (newest.stage, newest.step)) == (stage, checkpoint)
            await ask_for(world, "resume")
            assert await held == expected
            states = [event.data["state"] for event in world.events(kind="state_changed")]
            assert states[states.index("PAUSING") :][:3] == ["PAUSING", "PAUSED", "STARTING"]
            view = world.view()
            assert (view.attempt, view.epoch, view.failures) == (4, 2, [])

    run(scenario)


def test_a_pause_with_tasks_in_flight_for_later_steps_changes_nothing(tmp_path: Path) -> None:
    ends: list[str] = []

    async def scenario(pause: bool) -> None:
        async with deployment(tmp_path / str(pause)) as world:
            if pause:
                world.learners[0].hooks["Step", 2] = pausing(world)
            held = asyncio.create_task(finish(world, world.spec(staleness=1, steps=5)))
            if pause:
                assert (await paused(world)).sealed.keys() == {1, 2}
                await ask_for(world, "resume")
            ends.append(await held)

    run(lambda: scenario(False))
    run(lambda: scenario(True))
    assert ends[0] == ends[1]


def test_paused_ten_times_and_pauses_take_no_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].hooks = {("Step", step): pausing(world) for step in range(1, 11)}
            await world.submit({**world.spec(steps=11), "checkpoint": {"every_steps": 5}})
            for number in range(1, 11):
                view = await paused(world)
                assert view.completed["ppo"] == view.checkpoints[-1].step == number
                if number == 10:
                    await asyncio.sleep(0.5)
                resumed, before = time.monotonic(), view.elapsed
                await ask_for(world, "resume")
                await world.until(lambda: world.view().owner != "", "an owner")
            view = await world.end_of()
            assert view.elapsed <= before + time.monotonic() - resumed
            assert (view.state, view.epoch, view.attempt, view.owners_without_progress) == ("SUCCEEDED", 11, 11, 0)
            assert len(world.events(kind="step_completed")) == 11

    run(scenario)


def test_a_pause_ends_a_wait_for_rollouts_that_nobody_makes(tmp_path: Path) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            held = asyncio.create_task(finish(world, world.spec()))
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            await ask_for(world, "pause")
            assert (await paused(world)).checkpoints == []
            world.start_worker()
            await ask_for(world, "resume")
            assert await held == expected

    run(scenario)


def test_a_pause_ends_a_wait_for_a_learner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.schedulers[0].context.learners._targets = ("127.0.0.1:9",)
            await world.submit(world.spec())
            await world.until(lambda: "learner" in world.view().conditions, "the condition")
            await ask_for(world, "pause")
            await paused(world)
            world.schedulers[0].context.learners._targets = tuple(world.learner_addresses)
            await ask_for(world, "resume")
            assert (await world.end_of()).state == "SUCCEEDED"

    run(scenario)


def test_a_job_paused_before_it_has_an_owner_gets_none_and_can_be_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            await world.submit(world.spec())
            await ask_for(world, "pause")
            assert world.view().state == "PAUSED"
            world.start_scheduler()
            await world.submit(world.spec(), "job-2")
            assert (await world.end_of("job-2")).state == "SUCCEEDED"
            assert world.events(kind="owner_taken") == []
            await ask_for(world, "cancel")
            assert (await world.end_of()).state == "CANCELLED"
            assert world.learners[0].opened == ["job-2"]

    run(scenario)


def test_a_running_job_can_be_paused_and_then_cancelled(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].hooks["Step", 2] = pausing(world)
            await world.submit(world.spec())
            await paused(world)
            await ask_for(world, "cancel")
            view = await world.end_of()
            assert (view.state, view.completed["ppo"], view.attempt) == ("CANCELLED", 2, 1)
            await world.until(lambda: not world.store.list("active/"), "the job stayed in the index")

    run(scenario)


def test_a_pause_that_is_taken_back_in_time_changes_nothing(tmp_path: Path) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:

            async def take_back() -> None:
                await ask_for(world, "resume")
                await world.until(lambda: world.view().state == "RUNNING", "RUNNING")

            world.learners[0].hooks["Step", 2] = pausing(world, take_back)
            assert await finish(world, world.spec()) == expected
            view = world.view()
            assert (view.attempt, view.epoch, view.intents) == (1, 1, Intents())
            assert "PAUSED" not in [event.data["state"] for event in world.events(kind="state_changed")]

    run(scenario)


@pytest.mark.parametrize("resumed", [False, True])
def test_an_owner_lost_on_the_way_to_a_pause(tmp_path: Path, resumed: bool) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:

            async def kill() -> None:
                await world.schedulers[0].stop()

            world.learners[0].hooks["Step", 3] = pausing(world, kill)
            held = asyncio.create_task(finish(world, world.spec()))
            await world.until(lambda: world.schedulers[0]._stopping.is_set(), "the owner is lost")
            if resumed:
                await ask_for(world, "resume")
            world.start_scheduler("owner-1")
            if not resumed:
                await paused(world)
                await ask_for(world, "resume")
            assert await held == expected
            assert world.view().state == "SUCCEEDED"

    run(scenario)


@pytest.mark.parametrize("what", ["store", "queue", "learner"])
def test_a_pause_waits_for_what_is_away_and_does_without_a_lost_learner(tmp_path: Path, what: str) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            world.start_worker()
            world.start_scheduler()

            async def go_away() -> None:
                if what == "store":
                    store.go(6, "put_file", "/checkpoints/")
                elif what == "queue":
                    queue.refusals["close_job"] = 3
                else:
                    world.learners[0].die_at("Save", 1)

            world.learners[0].hooks["Step", 1] = pausing(world, go_away)
            held = asyncio.create_task(finish(world, world.spec()))
            view = await paused(world)
            assert [ref.step for ref in view.checkpoints] == ([] if what == "learner" else [1])
            await ask_for(world, "resume")
            assert await held == expected

    run(scenario)


def test_the_stage_time_fails_the_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit({**world.spec(), "limits": {"stage_time": 0.3}})
            view = await world.end_of()
            error = view.error
            assert error is not None
            assert (view.state, error.reason) == ("FAILED", "STAGE_TIME")
            assert "stage ppo has taken longer than limits.stage_time of 0.3 s" in error.message

    run(scenario)
