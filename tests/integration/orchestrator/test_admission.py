"""How many jobs run at once, in what order the others follow, and what waiting costs."""

import asyncio
import itertools
import logging
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
from tests.integration.orchestrator.faults import FlakyQueue, soon
from tests.integration.orchestrator.test_api import serving
from tests.integration.orchestrator.world import World, deployment, open_call, run

from quatrain.errors import LearnerBusy
from quatrain.joblog import Event, JobLog, jobs
from quatrain.joblog.payloads import payload_from
from quatrain.orchestrator.ownership import scheduler as scheduling
from quatrain.orchestrator.ownership.scheduler import Scheduler
from quatrain.orchestrator.peers import learners
from quatrain.orchestrator.peers.learner_session import OpenCall
from quatrain.orchestrator.submission.submit import Submission
from quatrain.storage import ObjectStore
from quatrain.v1 import job_pb2


def small(world: World, **fields: Any) -> dict[str, Any]:
    """The cheapest job there is."""
    return {**world.spec(prompts=2, steps=1, prompts_per_step=2), **fields}


async def max_at_once(world: World, names: list[str]) -> int:
    """Submits the jobs, lets as many begin as will, then lets them run to their ends; how many had begun and not ended
    at one moment."""
    for name in names:
        await world.submit(small(world), name)
    logs = {name: JobLog(world.calm, name) for name in names}
    most = 0

    def running() -> int:
        nonlocal most
        for log in logs.values():
            log.refresh()
        count = sum(log.view.epoch > 0 and not log.view.finished for log in logs.values())
        most = max(most, count)
        return count

    await world.until(lambda: running() >= 2, "two running jobs")
    await asyncio.sleep(0.5)
    running()
    world.start_worker()
    await world.until(lambda: running() == 0 and all(log.view.finished for log in logs.values()), "all ends", 60.0)
    return most


def waits(scheduler: Scheduler, job: str) -> str:
    """Why the job waits for its turn; empty when it does not."""
    return scheduler.conditions(job).get("queue", "")


def owners(world: World, name: str) -> list[str]:
    return [event.data["owner"] for event in world.events(name, "owner_taken")]


@pytest.mark.parametrize(("job_slots", "learners"), [(2, 3), (4, 2)])
def test_no_more_jobs_run_than_have_a_slot_and_a_learner(tmp_path: Path, job_slots: int, learners: int) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=learners, job_slots=job_slots) as world:
            names = [f"job-{number}" for number in range(5)]
            assert await max_at_once(world, names) == 2
            assert all(world.view(name).state == "SUCCEEDED" for name in names)
            assert all(owners(world, name) == ["owner-0"] for name in names)

    run(scenario)


def test_the_waiting_go_by_priority_then_by_age_and_say_what_they_wait_for(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=2, job_slots=1) as world:
            await world.submit(small(world), "first")
            await world.until(lambda: world.view("first").state == "RUNNING", "RUNNING")
            for name, priority in (("later", 0), ("last", 0), ("urgent", 5), ("idle", -1)):
                await world.submit(small(world, priority=priority), name)
            reason = partial(waits, world.schedulers[0])
            await soon(lambda: "3 jobs before it" in reason("idle"), "the end of the line")
            state = "1 of 1 taken (job slots of generation: 1, learners: 2)"
            assert reason("later") == f"waits for a slot in pool 'default': {state}; 1 job before it"
            assert reason("urgent").endswith("it is next")
            assert reason("first") == ""
            async with serving(world) as api:
                shown = (await api.call("ListJobs", job_pb2.ListJobsRequest())).jobs
                snapshot = (await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="later"), most=1))[0].snapshot
            assert {job.id: dict(job.conditions) for job in shown if job.id != "first"} == {
                name: {"queue": reason(name)} for name in ("later", "last", "urgent", "idle")
            }
            assert snapshot.state == job_pb2.JOB_STATE_QUEUED
            assert snapshot.conditions["queue"] == reason("later")
            assert [world.view(name).revision for name in ("later", "last", "urgent", "idle")] == [0, 0, 0, 0]
            world.start_worker()
            for name in ("first", "later", "last", "urgent", "idle"):
                await world.end_of(name)
            opened = sorted((world.events(name, "learner_opened")[0].time, name) for name in jobs.list_jobs(world.calm))
            assert [name for _, name in opened] == ["first", "urgent", "later", "last", "idle"]

    run(scenario)


def test_who_is_later_in_the_line_gets_a_learner_where_enough_are_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    busy_for = {"a", "b"}

    async def opened(address: str, call: OpenCall, tls: Any) -> str:
        if call.token.job in busy_for:
            raise LearnerBusy("taken by another orchestrator's job meanwhile")
        return call.token.job

    monkeypatch.setattr(learners, "_open_at", opened)

    async def ask(pool: learners.LearnerPool, job: str) -> str:
        try:
            return cast(str, await pool.open(open_call(job), (0, "", job)))
        except LearnerBusy as error:
            return error.message

    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=2, schedulers=0) as world:
            pool = learners.LearnerPool(world.learner_addresses)
            for job in sorted(busy_for):
                assert "taken by another" in await ask(pool, job)
            assert await ask(pool, "c") == "the free learners go to 'a', 'b'"
            busy_for.clear()
            assert await ask(pool, "b") == "b"

    run(scenario)


def test_two_orchestrators_keep_to_the_places_together(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=4, job_slots=2, schedulers=2) as world:
            names = [f"job-{number}" for number in range(8)]
            assert await max_at_once(world, names) == 2
            taken = [owners(world, name) for name in names]
            assert {len(each) for each in taken} == {1}
            assert {each[0] for each in taken} == {"owner-0", "owner-1"}

    run(scenario)


def test_jobs_of_a_dead_orchestrator_go_on_before_any_that_waits(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=3, job_slots=2) as world:
            await world.submit(small(world), "a")
            await world.submit(small(world), "b")
            await world.until(lambda: bool(owners(world, "a") and owners(world, "b")), "owners")
            await world.submit(small(world, priority=1), "urgent")
            world.start_scheduler("owner-1")
            await world.schedulers[0].stop()
            await world.until(lambda: owners(world, "a") == owners(world, "b") == ["owner-0", "owner-1"], "takeover")
            assert owners(world, "urgent") == []
            world.start_worker()
            for name in ("a", "b", "urgent"):
                assert (await world.end_of(name)).state == "SUCCEEDED"
            assert owners(world, "urgent") == ["owner-1"]

    run(scenario)


def test_the_last_known_slots_count_while_generation_is_away_which_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(scheduling, "CAPACITY_SECONDS", 0.05)

    async def scenario() -> None:
        async with deployment(tmp_path, learners=3, job_slots=2) as world:
            scheduler = world.schedulers[0]
            await soon(lambda: scheduler._capacity.job_slots == 2, "the slots")
            await scheduler.context.services.generation.close()
            await asyncio.sleep(0.3)
            assert (scheduler._capacity.job_slots, scheduler._capacity.count) == (2, 2)

    with caplog.at_level(logging.INFO):
        run(scenario)
    assert caplog.text.count("job slots not known") == 1


def test_who_finds_too_many_reserved_gives_the_place_back(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, learners=2, job_slots=1, schedulers=0) as world:
            queue = world.queue = Rivalry(world)
            world.start_scheduler()
            world.start_worker()
            await world.submit(small(world), "ours")
            await soon(lambda: bool(queue.given_back), "the slot was given back")
            assert owners(world, "ours") == []
            await queue.release("theirs", "rival")
            assert (await world.end_of("ours")).state == "SUCCEEDED"

    run(scenario)


class Rivalry(FlakyQueue):
    """Whenever a place is reserved for `ours`, a rival has reserved one for a job that nobody here had seen."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world
        self.given_back: list[str] = []

    async def hold(self, job: str, owner: str, ttl: float) -> bool:
        if job == "ours" and not self.given_back:
            self.world.store.put_if_absent("active/theirs", b"{}")
            await super().hold("theirs", "rival", 60.0)
        return await super().hold(job, owner, ttl)

    async def release(self, job: str, owner: str) -> None:
        if job == "ours":
            self.given_back.append(owner)
        await super().release(job, owner)


@pytest.mark.parametrize("now", [True, False])
def test_a_waiting_job_is_cancelled_without_a_place(tmp_path: Path, now: bool) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            await world.submit(small(world), "first")
            await world.until(lambda: world.view("first").state == "RUNNING", "RUNNING")
            for number in range(30):
                await world.submit(small(world), f"waiting-{number}")
            await soon(lambda: "29 jobs before it" in waits(world.schedulers[0], "waiting-29"), "the line")
            await ask_for(world, "waiting-29", "cancel_requested", now=now)
            assert (await world.end_of("waiting-29")).state == "CANCELLED"
            assert world.events("waiting-29", "learner_opened") == []
            assert world.view("first").state == "RUNNING"

    run(scenario)


def test_a_paused_job_leaves_its_place_and_goes_back_into_the_line(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            scheduler = world.schedulers[0]
            await world.submit(small(world), "old")
            await world.until(lambda: world.view("old").state == "RUNNING", "RUNNING")
            await world.submit(small(world), "new")
            await soon(lambda: bool(waits(scheduler, "new")), "the line")
            await ask_for(world, "old", "pause_requested")
            await world.until(lambda: world.view("new").state == "RUNNING", "RUNNING")
            assert (world.view("old").state, waits(scheduler, "old")) == ("PAUSED", "")
            await ask_for(world, "old", "resume_requested")
            await soon(lambda: waits(scheduler, "old").endswith("it is next"), "back in the line")
            assert world.view("old").epoch == 1
            world.start_worker()
            for name in ("new", "old"):
                assert (await world.end_of(name)).state == "SUCCEEDED"
            assert [len(owners(world, name)) for name in ("new", "old")] == [1, 2]

    run(scenario)


async def ask_for(world: World, name: str, kind: str, **data: Any) -> None:
    """Append an intent as the API writes it."""
    await world.ask(kind, {"reason": "enough", **data}, name)


class CountingStore:
    """One orchestrator's way to the store: counts its requests."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.looks = 0
        self.requests = 0

    def __getattr__(self, name: str) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            self.requests += 1
            self.looks += args[:1] == ("active/",)
            return getattr(self._inner, name)(*args, **kwargs)

        return call


async def many_jobs(world: World, count: int) -> list[str]:
    """Accepts jobs that differ in their ids only, faster than by submitting them."""
    plan = await world.submitter().submit(Submission(small(world), owner="local", validate_only=True))
    names = [f"job-{number:03}" for number in range(count)]
    for name in names:
        assert jobs.create_job(
            world.store, name, {**plan.document.to_json(), "create_time": f"2026-01-01T00:00:00.{name[4:]}"}
        )
    return names


def test_a_look_at_twenty_running_and_two_hundred_waiting_jobs_costs_a_few_requests(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0, job_slots=20) as world:
            world.learner_addresses += [f"127.0.0.1:{port}" for port in range(1, 26)]
            names = await many_jobs(world, 220)
            for name in names[:20]:
                taken = {"owner": "elsewhere", "address": ""}
                JobLog(world.store, name).append(Event(payload_from("owner_taken", taken), "elsewhere", epoch=1))
                assert await world.queue.hold(name, "elsewhere", 600.0)
            store = CountingStore(world.store)
            scheduler = world.start_scheduler("here", store=cast(ObjectStore, store))
            await soon(
                lambda: "20 of 20 taken" in waits(scheduler, "job-219"),
                "the end of the line",
                30.0,
            )
            assert waits(scheduler, "job-219").endswith("199 jobs before it")
            store.looks, store.requests = 0, 0
            await soon(lambda: store.looks >= 30, "thirty looks", 30.0)
            assert store.requests <= 3 * store.looks
            assert not any(owners(world, name) for name in names[20:])

    run(scenario)


def test_jobs_of_another_pool_are_left_to_its_orchestrators(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            spec = small(world, pool="other", priority=9)
            submitter = replace(world.submitter(), pool="other")
            await submitter.submit(Submission(spec, owner="local", job_id="theirs"))
            await world.submit(small(world), "ours")
            assert (await world.end_of("ours")).state == "SUCCEEDED"
            assert (world.view("theirs").revision, waits(world.schedulers[0], "theirs")) == (0, "")

    run(scenario)


@pytest.mark.slow
def test_two_hundred_waiting_jobs_all_end_with_twenty_at_once(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, learners=20, workers=3, schedulers=0, job_slots=20) as world:
            names = await many_jobs(world, 220)
            stores = [CountingStore(world.store) for _ in range(2)]
            for number, store in enumerate(stores):
                world.start_scheduler(f"owner-{number}", store=cast(ObjectStore, store))
            await world.until(lambda: jobs.list_active(world.calm) == {}, "all ends", 300.0)
            changes = []
            for name in names:
                first, *_, last = world.events(name)
                assert last.data["state"] == "SUCCEEDED"
                changes += [(first.time, 1), (last.time, -1)]
            assert {tuple(owners(world, name)) for name in names} == {("owner-0",), ("owner-1",)}
            assert max(itertools.accumulate(change for _, change in sorted(changes))) <= 20

    run(scenario, 400.0)
