"""A job that waits for rollouts says so, and for what."""

from pathlib import Path

import pytest
from tests.integration.orchestrator.faults import FlakyQueue
from tests.integration.orchestrator.world import deployment, run

from quatrain.orchestrator.job import await_rollouts


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(await_rollouts, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(await_rollouts, "SILENT_SECONDS", 0.5)


def test_a_job_says_that_no_rollout_comes_until_one_does(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit(world.spec())
            await world.until(lambda: "rollouts" in world.view().conditions, "the condition", 30.0)
            said = world.view().conditions["rollouts"]
            assert said.startswith(
                "rollout of step 1 with policy version 0: nothing has come for 0.5 s, 4 of 4 samples"
            )
            world.start_worker()
            view = await world.end_of(seconds=30.0)
            assert (view.state, view.conditions) == ("SUCCEEDED", {})

    run(scenario)


def test_a_job_says_that_the_queue_is_away_while_it_collects(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            world.start_scheduler()
            await world.submit(world.spec())
            await world.until(lambda: bool(queue.added), "tasks", 30.0)
            queue.refusals["read_results"] = 10**6
            await world.until(lambda: "unavailable" in world.view().conditions, "the condition", 30.0)
            assert "the queue is away" in world.view().conditions["unavailable"]
            queue.refusals.clear()
            world.start_worker()
            view = await world.end_of(seconds=30.0)
            assert (view.state, view.conditions) == ("SUCCEEDED", {})

    run(scenario)
