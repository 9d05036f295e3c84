"""Jobs whose owners are lost again and again at the same place."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
from tests.integration.orchestrator.faults import soon
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.orchestrator.ownership.admission import MAX_LOST_OWNERS, SUSPECT_AFTER
from quatrain.orchestrator.ownership.scheduler import Scheduler

LEASE = 0.1


def start(world: World, name: str) -> Scheduler:
    scheduler = world.start_scheduler(name)
    scheduler.lease = LEASE
    return scheduler


async def lose_owners(world: World, count: int, jobs: Sequence[str] = ("job-1",)) -> None:
    """Let each job lose so many owners, none of which brings it on: there are no rollout workers."""
    for number in range(count):
        scheduler = start(world, f"lost-{number}")
        for job in jobs:
            await world.until(lambda: world.view(job).epoch > number, f"owner {number} of {job}")  # noqa: B023
        await scheduler.stop()


def test_a_job_that_loses_every_owner_fails_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            await world.submit(world.spec())
            await lose_owners(world, MAX_LOST_OWNERS)
            start(world, "last")
            view = await world.end_of()
            assert (view.state, view.epoch) == ("FAILED", MAX_LOST_OWNERS + 1)
            assert view.error is not None
            assert view.error.reason == "OWNERS_LOST"
            assert f"{MAX_LOST_OWNERS} orchestrators in a row were lost" in view.error.message
            openings = [event.epoch for event in world.events(kind="learner_opened")]
            assert MAX_LOST_OWNERS + 1 not in openings, "the last owner does no work any more"

    run(scenario)


def test_progress_clears_a_job_of_the_suspicion(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            await world.submit(world.spec())
            await lose_owners(world, MAX_LOST_OWNERS - 1)
            start(world, "last")
            world.start_worker()
            view = await world.end_of()
            assert (view.state, view.owners_without_progress) == ("SUCCEEDED", 0)
            assert 1 < view.stage_attempt <= MAX_LOST_OWNERS

    run(scenario)


@pytest.mark.parametrize("data", [{"now": True}, {}])
def test_an_intent_is_obeyed_before_the_next_owner_does_any_work(tmp_path: Path, data: dict[str, bool]) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            await world.submit(world.spec())
            await lose_owners(world, 3)
            await world.ask("cancel_requested", data)
            start(world, "next")
            assert (await world.end_of()).state == "CANCELLED"
            last = [event.type for event in world.events() if event.epoch == 4]
            assert set(last) <= {"owner_taken", "state_changed", "job_finished"}

    run(scenario)


def test_a_pause_is_obeyed_before_the_next_owner_does_any_work(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            await world.submit(world.spec())
            await lose_owners(world, 1)
            await world.ask("pause_requested", {})
            start(world, "next")
            await world.until(lambda: world.view().state == "PAUSED", "PAUSED")
            assert "learner_opened" not in [event.type for event in world.events() if event.epoch == 2]

    run(scenario)


def test_suspects_are_owned_one_at_a_time_and_all_of_them_end(tmp_path: Path) -> None:
    names = ["one", "two", "three"]

    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0, learners=3) as world:
            for name in names:
                await world.submit(world.spec(), name)
            await lose_owners(world, SUSPECT_AFTER, names)
            scheduler = start(world, "next")
            await soon(lambda: len(scheduler._owned) == 1, "an owner for one of them")
            await asyncio.sleep(10 * LEASE)
            assert len(scheduler._owned) == 1
            world.start_worker()
            assert [(await world.end_of(name)).state for name in names] == ["SUCCEEDED"] * 3

    run(scenario)
