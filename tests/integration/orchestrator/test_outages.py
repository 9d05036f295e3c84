"""Store, queue and services that go away and come back: the job waits, says so, and loses nothing."""

import asyncio
from pathlib import Path

import pytest
from tests.integration.orchestrator.faults import FlakyQueue, FlakyStore, soon
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.errors import Overloaded, Unavailable
from quatrain.joblog import jobs


def check_ended_well(world: World) -> None:
    """One seal and one completion a step, one attempt, no condition left."""
    view = world.view()
    assert (view.state, view.error, view.conditions) == ("SUCCEEDED", None, {})
    assert [event.data["step"] for event in world.events(kind="batch_sealed")] == [1, 2, 3]
    assert [event.data["step"] for event in world.events(kind="step_completed")] == [1, 2, 3]


@pytest.mark.parametrize(
    ("method", "part"),
    [
        ("put_if_absent", "/batches/"),
        ("put_if_absent", "/events/"),
        ("reply", "/events/"),
        ("reply", "/batches/"),
        ("get", "/events/"),
        ("put_file", "/policy/"),
        ("put_file", "/checkpoints/"),
        ("", "/tokens/"),
        ("get", "/batches/"),
        ("put_file", "models/"),
        ("delete", "active/"),
        ("list", "active/"),
    ],
)
def test_a_store_that_is_away_for_a_while_only_delays(tmp_path: Path, method: str, part: str) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec())
            store.go(6, method, part)
            await world.end_of()
            await soon(lambda: not store.calm.list("active/"), "the job stayed in the index")
            assert len(store.refused) == 6
            check_ended_well(world)
            assert world.view().attempt == 1

    run(scenario)


def test_a_store_that_is_away_altogether_only_delays(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec())
            await world.until(lambda: world.view().step >= 1, "step 1")
            store.away = lambda method, key: True
            await asyncio.sleep(0.4)
            store.away = lambda method, key: False
            await world.end_of()
            check_ended_well(world)

    run(scenario)


def test_the_condition_says_what_is_waited_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec())
            store.go(10_000, "put_if_absent", "/batches/")
            await world.until(lambda: "unavailable" in world.view().conditions, "the condition")
            assert "the store is away (put_if_absent" in world.view().conditions["unavailable"]
            await asyncio.sleep(0.3)
            assert len(world.events(kind="condition")) == 1, "one event, however long it takes"
            store.go(0)
            await world.end_of()
            check_ended_well(world)

    run(scenario)


def test_an_owner_that_could_not_even_write_says_so_afterwards(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = FlakyStore()
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec())
            store.go(1, "put_if_absent", "/events/0000000004")
            await world.end_of()
            check_ended_well(world)
            said = [event.data for event in world.events(kind="condition")]
            assert [each["name"] for each in said] == ["unavailable", "unavailable"]
            assert "the store is away (put_if_absent" in said[0]["message"]
            assert said[1]["message"] is None

    run(scenario)


def test_an_overloaded_generation_service_is_waited_for(tmp_path: Path) -> None:
    refusals = [Overloaded("busy", retry_after=0.01)] * 5

    def busy() -> None:
        if refusals:
            raise refusals.pop()

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.engine.before = busy
            await world.submit(world.spec())
            await world.end_of()
            check_ended_well(world)

    run(scenario)


@pytest.mark.parametrize(
    "method", ["add_task", "read_results", "lease", "complete", "open_job", "close_job", "sentinel"]
)
def test_a_queue_that_is_away_for_a_while_only_delays(tmp_path: Path, method: str) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            world.start_scheduler()
            world.start_worker()
            await world.submit(world.spec())
            queue.refusals[method] = 4
            await world.end_of()
            await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
            assert queue.refusals[method] == 0
            check_ended_well(world)
            assert world.view().attempt == 1
            assert await queue.read_results("job-1", "0", count=9, block=0.0) == []

    run(scenario)


def test_a_queue_that_refuses_the_second_of_two_tasks_gets_it_later(tmp_path: Path) -> None:
    class Refusing(FlakyQueue):
        async def add_task(self, pool: str, job: str, payload: bytes) -> str:
            self.refusals["add_task"] = 3 if len(self.added) == 1 else 0
            return await super().add_task(pool, job, payload)

    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = Refusing()
            world.start_scheduler()
            await world.submit(world.spec())
            await asyncio.sleep(0.3)
            queue.refusals.clear()
            Refusing.add_task = FlakyQueue.add_task  # type: ignore[method-assign]
            world.start_worker()
            await world.end_of()
            check_ended_well(world)

    run(scenario)


def test_a_wiped_queue_gets_its_missing_tasks_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit(world.spec())
            await soon(lambda: sum(len(p.waiting) for p in world.queue._pools.values()) == 2, "two tasks")
            world.queue.wipe()
            await soon(lambda: sum(len(p.waiting) for p in world.queue._pools.values()) == 2, "two tasks again")
            world.start_worker()
            await world.until(lambda: world.view().step >= 1, "step 1")
            world.queue.wipe()
            await world.end_of()
            check_ended_well(world)
            assert world.view().epoch == 1

    run(scenario)


def test_one_damaged_job_does_not_keep_the_others_from_their_owner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            jobs.create_job(world.store, "a-broken", {"spec": {}, "pinned": {}})
            jobs.create_job(world.store, "b-broken", {"spec": {}, "pinned": {}})
            world.store.put("jobs/b-broken/spec.json", b"not JSON")
            world.store.put("active/Not A Job", b"{}")
            world.store.put("active/never-made", b"{}")
            world.start_scheduler()
            await world.submit(world.spec())
            await world.end_of()
            check_ended_well(world)

    run(scenario)


def test_a_damaged_job_that_is_mended_gets_its_owner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            await world.submit(world.spec())
            whole = world.store.get("jobs/job-1/spec.json")
            world.store.put("jobs/job-1/spec.json", b"z" + whole[1:])
            scheduler = world.start_scheduler()
            await soon(lambda: "job-1" in scheduler._damaged, "nobody has seen the damage")
            world.store.put("jobs/job-1/spec.json", whole)
            await world.end_of()
            check_ended_well(world)
            assert not scheduler._damaged

    run(scenario)


def test_what_an_owner_that_died_after_the_end_left_is_cleaned_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            learner = world.learners[0]
            learner.refusals["Close"] = [Unavailable("the owner's word is lost")]
            await world.submit(world.spec())
            await world.end_of()
            await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
            assert learner._service.status().token is not None
            world.store.put("active/job-1", b"{}")
            await world.queue.open_job("job-1")
            await soon(lambda: not world.calm.list("active/"), "the job stayed in the index")
            await soon(lambda: "job-1" not in world.queue._jobs, "the queue kept the job")
            assert learner._service.status().token is None

    run(scenario)
