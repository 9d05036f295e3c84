"""Retention in running jobs: bounded, event first, data after, and nothing that the log keeps is ever missing."""

import asyncio
import contextlib
import random
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.faults import FlakyStore
from tests.integration.orchestrator.kept import (
    Watching,
    check_kept,
    missing,
    objects_of,
    pin_newest,
    units_named,
    units_of,
)
from tests.integration.orchestrator.test_api import Api, serving
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.errors import NotFound, WrongState
from quatrain.joblog import JobLog, jobs
from quatrain.orchestrator.retention.sweep import Sweeper
from quatrain.v1 import job_pb2


def keeping(world: World, steps: int = 12, every: int = 2, **checkpoint: Any) -> dict[str, Any]:
    spec = world.spec(steps=steps)
    spec["checkpoint"] = {"every_steps": every, "keep_last": 1, **checkpoint}
    spec["limits"] = {"retries": 50}
    return spec


def start_sweeper(world: World) -> Sweeper:
    sweeper = Sweeper(world.store, "sweeper", 0.05)
    world.keep(sweeper.run())
    return sweeper


async def swept(world: World, job: str = "job-1") -> None:
    """The finished job has gone from the index of unfinished jobs to that of jobs to clean, and from there."""
    await world.until(lambda: not world.calm.list(f"active/{job}"), "the job is still in the index")
    await world.until(lambda: not world.calm.list(f"cleanup/{job}/"), "the job is not cleaned")


def test_a_job_leaves_its_checkpoints_and_their_policies(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            start_sweeper(world)
            await world.submit(keeping(world, steps=13, keep_every=4))
            view = await world.end_of()
            await swept(world)

            assert view.state == "SUCCEEDED"
            assert [ref.step for ref in view.checkpoints] == [4, 8, 12, 13]
            assert set(view.policies) == {0, 4, 8, 12, 13}
            assert units_of(world.store, "job-1") == units_named(view)
            assert missing(world.store, view) == {}
            assert world.events()[-1].type == "job_finished"
            assert len(world.events(kind="policies_released")) == 6

    run(scenario)


@pytest.mark.parametrize("seed", range(3))
def test_whatever_goes_wrong_nothing_that_is_kept_is_missing(tmp_path: Path, seed: int) -> None:
    dice = random.Random(seed)

    async def scenario() -> None:
        async with deployment(tmp_path, learners=2) as world, serving(world) as api:
            start_sweeper(world)
            watching = Watching(world.store, "job-1")
            await world.submit(_eventful(world, dice))
            watcher = world.keep(watching.run())
            disturbing = asyncio.create_task(_disturb(world, api, dice))
            view = await world.end_of(seconds=50.0)
            disturbing.cancel()
            (end,) = await asyncio.gather(disturbing, return_exceptions=True)
            assert isinstance(end, asyncio.CancelledError), end
            await swept(world)

            assert view.state == "SUCCEEDED", view.error
            assert not watcher.done(), watcher
            assert watching.looks > 5
            view = world.view()
            check_kept(world.store, "job-1")
            assert units_of(world.store, "job-1") == units_named(view)
            named = {ref.key for refs in (view.sealed, view.tokens, view.evaluations) for ref in refs.values()}
            assert {f"jobs/job-1/{key}" for key in objects_of(world.store, "job-1", ".parquet")} == named

    run(scenario)


def _eventful(world: World, dice: random.Random) -> dict[str, Any]:
    spec = keeping(world, steps=14, every=dice.choice([1, 2, 3]), keep_best="reward/score_mean")
    spec["ppo"]["staleness"] = dice.choice([0, 1])
    spec["ppo"]["eval_prompts"] = put_rows(world.store, [{"prompt": "ac"}, {"prompt": "bd"}])
    spec["ppo"]["eval_every"] = 3
    for learner in world.learners:
        for method in ("Step", "Publish", "Save"):
            for call in dice.sample(range(1, 12), 2):
                learner.die_at(method, call, dice.choice(["before", "after"]))
    return spec


async def _disturb(world: World, api: Api, dice: random.Random) -> None:
    """Pins, releases and new owners at random moments."""
    owners = 0
    while True:
        await asyncio.sleep(dice.uniform(0.0, 0.2))
        steps = [ref.step for ref in world.view().checkpoints if ref.stage == "ppo"]
        action = dice.choice(["pin", "unpin", "delete", "owner"])
        if action == "owner" and owners < 2:
            owners += 1
            await world.schedulers[-1].stop()
            world.start_scheduler(f"heir-{owners}")
        elif steps and action != "owner":
            with contextlib.suppress(WrongState, NotFound):  # Pinned, the newest one, or gone meanwhile.
                await _touch(api, action, dice.choice(steps))


async def _touch(api: Api, action: str, step: int) -> None:
    if action == "delete":
        await api.call("DeleteCheckpoint", job_pb2.DeleteCheckpointRequest(job_id="job-1", step=step))
    else:
        await api.call("PinCheckpoint", job_pb2.PinCheckpointRequest(job_id="job-1", step=step, pinned=action == "pin"))


def test_a_pin_in_mid_run_holds_to_the_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            start_sweeper(world)
            await world.submit(keeping(world))
            step = await pin_newest(world, api)
            view = await world.end_of()
            await swept(world)

            assert [ref.step for ref in view.checkpoints] == sorted({step, 12})
            assert set(view.policies) == {0, step, 12}
            assert missing(world.store, view) == {}

    run(scenario)


def test_a_paused_job_has_all_that_it_goes_on_with(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            start_sweeper(world)
            spec = keeping(world, steps=40, every=3)
            spec["ppo"]["staleness"] = 2
            await world.submit(spec)
            watcher = world.keep(Watching(world.store, "job-1").run())
            await world.until(lambda: len(world.view().released) > 0, "a release")
            await api.call("PauseJob", job_pb2.PauseJobRequest(job_id="job-1"))
            await world.until(lambda: world.view().state == "PAUSED", "a pause")
            view = world.view()
            await world.schedulers[0].stop()
            (checkpoint,) = view.checkpoints
            unsealed = max(view.sealed) + 1
            assert {checkpoint.step, view.step, unsealed - 3} <= set(view.policies)
            assert missing(world.store, view) == {}
            await api.call("ResumeJob", job_pb2.ResumeJobRequest(job_id="job-1"))
            world.start_scheduler("heir")
            assert (await world.end_of(seconds=50.0)).state == "SUCCEEDED"
            assert not watcher.done(), watcher

    run(scenario)


def test_an_owner_that_dies_between_event_and_deletion_leaves_the_rest_to_the_next(tmp_path: Path) -> None:
    store = FlakyStore()

    async def scenario() -> None:
        async with deployment(tmp_path, store=store) as world:
            await world.submit(keeping(world, steps=40))
            store.go(10**6, method="delete", part="jobs/")
            await world.until(lambda: len(world.view().released) > 1, "releases")
            await world.schedulers[0].stop()
            view = world.view()
            gone = [key.removesuffix("/manifest.json") for key in view.released]
            assert set(gone) & units_of(store.calm, "job-1") == set(gone), "data go after the event, so they are there"
            store.away = lambda method, key: False
            world.start_scheduler("heir")
            await world.until(lambda: not set(gone) & units_of(store.calm, "job-1"), "the heir has not cleaned")
            check_kept(store.calm, "job-1")
            assert (await world.end_of(seconds=50.0)).state == "SUCCEEDED"

    run(scenario)


def test_deletions_that_the_owner_did_not_get_to_are_done_after_the_end(tmp_path: Path) -> None:
    store = FlakyStore()

    async def scenario() -> None:
        async with deployment(tmp_path, store=store) as world:
            store.away = lambda method, key: method == "delete" and key.startswith("jobs/")
            await world.submit(keeping(world))
            view = await world.end_of()
            await world.until(lambda: not store.calm.list("active/"), "the job is still in the index")
            assert len(units_of(store.calm, "job-1")) > len(units_named(view))
            sweeper = Sweeper(store, "sweeper", 0.05)
            left = [3]

            def tired(method: str, key: str) -> bool:
                left[0] -= method == "delete"
                return left[0] < 0

            store.away = tired  # It dies after three objects.
            world.keep(sweeper.run())
            await world.until(lambda: left[0] < 0, "it deletes")
            assert store.calm.list("cleanup/job-1/")
            store.away = lambda method, key: False
            await swept(world)
            assert units_of(store.calm, "job-1") == units_named(world.view())
            check_kept(store.calm, "job-1")

    run(scenario)


def test_a_failed_job_gives_up_what_only_running_jobs_need(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].die_at("Step", 6)
            spec = keeping(world, steps=50, every=50)
            spec["limits"] = {"retries": 0}
            await world.submit(spec)
            view = await world.end_of()
            assert (view.state, sorted(view.policies)) == ("FAILED", [0, 1, 2, 3, 4, 5])
            start_sweeper(world)
            await swept(world)
            view = world.view()

            assert (view.state, sorted(view.policies)) == ("FAILED", [0, 5])
            assert view.error is not None
            assert units_of(world.store, "job-1") == units_named(view) == {"jobs/job-1/ppo/policy/5-1"}

    run(scenario)


def test_an_entry_whose_event_was_never_written_is_not_kept_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            await world.end_of()
            await world.until(lambda: not world.store.list("active/"), "the job is still in the index")
            ahead = jobs.cleanup_key("job-1", JobLog(world.store, "job-1").refresh()[-1].revision + 1)
            world.store.put(ahead, b"{}")
            sweeper = Sweeper(world.store, "sweeper", 0.05)

            await asyncio.to_thread(sweeper.clean_all)
            assert [stat.key for stat in world.store.list("cleanup/")] == [ahead]
            monkeypatch.setattr("quatrain.orchestrator.retention.sweep.PENDING_SECONDS", 0.0)
            await asyncio.to_thread(sweeper.clean_all)
            assert world.store.list("cleanup/") == []

    run(scenario)


@pytest.mark.slow
def test_a_long_job_leaves_no_more_than_a_short_one(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            start_sweeper(world)
            counts = {}
            for steps in (20, 200):
                job = f"job-{steps}"
                spec = keeping(world, steps=steps, every=5, keep_last=2)
                await world.submit(spec, job)
                assert (await world.end_of(job, seconds=200.0)).state == "SUCCEEDED"
                await swept(world, job)
                counts[steps] = len(objects_of(world.store, job, "/policy/", "/checkpoints/", "/rollouts/"))
                tables = objects_of(world.store, job, ".parquet")
                assert len(tables) == 2 * steps, "a batch and its token table a step, kept for people"
            assert counts[20] == counts[200]

    run(scenario, limit=300.0)
