"""The rollout worker alone: retries, final failures, leases, late completions, several workers."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.faults import FlakyQueue, soon
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.errors import Overloaded, RewardFunctionError, RunFailed
from quatrain.joblog import jobs
from quatrain.orchestrator.plan import Plan, read_plan
from quatrain.orchestrator.rollout.collector import Collector
from quatrain.orchestrator.rollout.sampling import ExpectedBatch, make_task, rollout_samples, scoring
from quatrain.orchestrator.rollout.wire import encode_task
from quatrain.v1 import generation_pb2, rollout_pb2


def batch_of(plan: Plan) -> ExpectedBatch:
    pinned = plan.pinned
    assert pinned.reward is not None
    return ExpectedBatch(
        purpose="rollout",
        step=1,
        samples=rollout_samples(plan, 1),
        policy=pinned.model,
        policy_version=0,
        prompts=pinned.prompts,
        scorings=(scoring("score", pinned.reward, 1.0),),
        reference=pinned.model,
    )


@contextlib.asynccontextmanager
async def tasks(root: Path, count: int = 1, deadline: float = 10.0) -> AsyncIterator[tuple[World, FlakyQueue]]:
    """A world without a worker, whose queue holds `count` tasks of two samples."""
    async with deployment(root, learners=0, workers=0, schedulers=0) as world:
        queue = world.queue = FlakyQueue()
        await world.submit(world.spec(prompts_per_step=2 * count))
        plan = read_plan("job-1", jobs.read_spec(world.store, "job-1"))
        await queue.open_job("job-1")
        for chunk in range(count):
            task = make_task(plan, batch_of(plan), 1, chunk, deadline)
            await queue.add_task("default", "job-1", encode_task(task))
        yield world, queue


async def nobody_else() -> None:
    """The job has no other owner."""


async def results(queue: FlakyQueue, count: int, seconds: float = 10.0) -> list[rollout_pb2.RolloutResult]:
    deadline = time.monotonic() + seconds
    while True:
        entries = await queue.read_results("job-1", "0", count=100, block=0.05)
        if len(entries) >= count:
            return [rollout_pb2.RolloutResult.FromString(payload) for _, payload in entries]
        assert time.monotonic() < deadline, f"{len(entries)} of {count} results within {seconds:g} s"
        await asyncio.sleep(0.02)


def test_errors_that_pass_are_tried_again(tmp_path: Path) -> None:
    refusals = [Overloaded("busy", retry_after=0.01)] * 4

    def busy() -> None:
        if refusals:
            raise refusals.pop()

    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            world.engine.before = busy
            queue.refusals = {"lease": 2, "complete": 3}
            world.start_worker("w")
            found = await results(queue, 2)
            assert {result.scores[0].status for result in found} == {"rollout"}
            assert {result.made_by[:2] for result in found} == {"w-"}
            assert all(len(result.ref_logprobs) == len(result.completion_ids) for result in found)
            assert (await queue.backlog("default")).waiting == 0

    run(scenario)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RewardFunctionError("count raised at sample 1"), "REWARD_FUNCTION_FAILED"),
        (RunFailed("logits that are not finite"), "RUN_FAILED"),
        (ValueError("a bug of the service"), "INTERNAL"),
    ],
)
def test_any_other_error_ends_the_task_after_two_tries_and_not_the_worker(
    tmp_path: Path, error: Exception, reason: str
) -> None:
    calls: list[int] = []

    def opinion(batch: Any) -> tuple[float | None, ...]:
        calls.append(len(batch.samples))
        if len(calls) <= 2:
            raise error
        return tuple(1.0 for _ in batch.samples)

    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            world.reward.opinion = opinion
            world.start_worker()
            (failure,) = await results(queue, 1)
            assert (failure.error_reason, len(calls)) == (reason, 2)
            assert failure.error_message
            await queue.add_task("default", "job-1", queue.added[0])
            assert len(await results(queue, 3)) == 3, "the worker goes on"

    run(scenario)


def test_an_answer_with_too_few_samples_is_a_failure_that_names_the_service(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            services = world.services()
            pool: Any = services.generation
            call = pool.call

            async def short(*arguments: Any, **options: Any) -> generation_pb2.GenerateResponse:
                answer: generation_pb2.GenerateResponse = await call(*arguments, **options)
                del answer.finish_reasons[-1]
                return answer

            pool.call = short
            world.start_worker(services=services)
            (failure,) = await results(queue, 1)
            assert failure.error_message == "generation answered 1 samples of the 2 that it was asked for"

    run(scenario)


def test_entries_that_are_no_tasks_and_prompts_that_are_not_there_do_not_end_the_worker(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            task = rollout_pb2.RolloutTask.FromString(queue.added[0])
            task.rows[0].prompt_index = 99
            await queue.add_task("default", "job-1", task.SerializeToString())
            await queue.add_task("default", "job-1", b"\xff\xff no task")
            world.start_worker()
            found = await results(queue, 3)
            failures = [result.error_message for result in found if result.error_reason]
            assert failures == ["the task asks for prompt 99 of a table of 8"]
            await soon(lambda: len(queue.completions) == 3, "all entries gone")

    run(scenario)


def test_a_task_whose_deadline_passes_is_left_to_be_leased_again(tmp_path: Path) -> None:
    def busy() -> None:
        raise Overloaded("busy", retry_after=0.01)

    async def scenario() -> None:
        async with tasks(tmp_path, deadline=0.3) as (world, queue):
            world.engine.before = busy
            world.start_worker("first", idle=0.3)
            await asyncio.sleep(0.8)
            assert queue.completions == []
            world.engine.before = lambda: None
            assert len(await results(queue, 2)) == 2

    run(scenario)


def test_a_stopping_worker_leaves_what_cannot_be_done_now(tmp_path: Path) -> None:
    tried = asyncio.Event()

    async def scenario() -> None:
        loop = asyncio.get_running_loop()

        def busy() -> None:
            loop.call_soon_threadsafe(tried.set)
            raise Overloaded("busy", retry_after=0.01)

        async with tasks(tmp_path, deadline=600.0) as (world, _):
            world.engine.before = busy
            services, others = world.services(), asyncio.all_tasks()
            worker = world.start_worker("w", services=services)
            (working,) = asyncio.all_tasks() - others
            await tried.wait()
            worker.stop()
            async with asyncio.timeout(30.0):
                await working

    run(scenario)


def test_a_slow_task_keeps_its_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            world.engine.before = lambda: time.sleep(0.8)
            for name in ("first", "second"):
                world.start_worker(name, idle=0.3)
            assert len(await results(queue, 2)) == 2
            assert len(queue.renewals) >= 4
            assert [done for _, done in queue.completions] == [True]

    run(scenario)


def test_work_whose_lease_was_lost_is_dropped_and_completed_by_the_other_worker(tmp_path: Path) -> None:
    hold = threading.Event()

    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            world.engine.before = lambda: (hold.wait(5.0), None)[1]
            world.start_worker("slow", idle=0.3)
            await soon(lambda: bool(queue._pools["default"].held), "the lease")
            (stolen,) = await queue.reclaim("default", "thief", idle=0.0, count=1)
            await soon(lambda: len(queue.renewals) >= 1, "a renewal that fails")
            assert await queue.complete(stolen, [b"done"])
            hold.set()
            await asyncio.sleep(0.3)
            assert queue.completions == [("thief", True)]

    run(scenario)


def test_a_dead_workers_task_is_reclaimed(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            (lease,) = await queue.lease("default", "dead", count=1, block=0.0)
            world.start_worker("alive", idle=0.3)
            assert len(await results(queue, 2)) == 2
            assert not await queue.complete(lease, [b"late"]), "the late completion is dropped"
            assert len(await results(queue, 2)) == 2

    run(scenario)


def test_two_workers_share_the_tasks_and_stop_when_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path, count=4) as (world, queue):
            world.engine.before = lambda: time.sleep(0.05)
            workers = [world.start_worker(name) for name in ("a", "b")]
            found = await results(queue, 8)
            assert {result.made_by[0] for result in found} == {"a", "b"}
            assert len({result.row.rollout_id for result in found}) == 8
            for worker in workers:
                worker.stop()
            await asyncio.sleep(0.3)
            await queue.add_task("default", "job-1", queue.added[0])
            await asyncio.sleep(0.2)
            assert (await queue.backlog("default")).waiting == 1

    run(scenario)


def test_tasks_of_a_job_that_has_ended_are_acknowledged_and_not_done(tmp_path: Path) -> None:
    calls: list[int] = []

    async def scenario() -> None:
        async with tasks(tmp_path, count=3) as (world, queue):
            world.engine.before = lambda: calls.append(1)
            await queue.close_job("job-1")
            queue.refusals["complete"] = 2
            world.start_worker()
            await soon(lambda: len(queue.completions) == 3, "the tasks' end")
            assert (calls, (await queue.backlog("default")).waiting, queue._pools["default"].held) == ([], 0, {})
            await queue.open_job("job-1")
            await queue.add_task("default", "job-1", queue.added[0])
            assert len(await results(queue, 2)) == 2, "opened again, it is worked for again"

    run(scenario)


def test_a_task_is_done_when_nobody_can_tell_whether_its_job_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path) as (world, queue):
            queue.refusals["is_open"] = 1
            world.start_worker()
            assert len(await results(queue, 2)) == 2
            assert queue.refusals["is_open"] == 0

    run(scenario)


def test_a_worker_leaves_the_queue_when_it_stops_and_forgets_the_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("quatrain.orchestrator.rollout.worker.FORGET_AFTER_SECONDS", 0.3)
    monkeypatch.setattr("quatrain.orchestrator.rollout.worker.FORGET_EVERY_SECONDS", 0.1)

    async def scenario() -> None:
        async with tasks(tmp_path, count=3) as (world, queue):
            (done,) = await queue.lease("default", "dead", count=1, block=0.0)
            await queue.complete(done, [])
            (held,) = await queue.lease("default", "held", count=1, block=0.0)
            names = queue._pools["default"].workers
            worker = world.start_worker("w", idle=60.0)
            assert len(await results(queue, 2)) == 2
            await soon(lambda: "dead" not in names, "the dead worker was not forgotten")
            assert "held" in names, "it may come back to its task"
            await queue.add_task("default", "job-1", queue.added[0])
            assert len(await results(queue, 4)) == 4
            worker.stop()
            await soon(lambda: set(names) == {"held"}, "the worker did not leave")
            assert await queue.renew(held)

    run(scenario)


def test_what_a_worker_makes_is_what_the_collector_takes(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with tasks(tmp_path, count=2) as (world, queue):
            plan = read_plan("job-1", jobs.read_spec(world.store, "job-1"))
            collector = Collector(plan, 1, queue, world.store)
            world.keep(collector.run(nobody_else))
            world.start_worker()
            batch = batch_of(plan)
            collected = await asyncio.wait_for(collector.collect(batch), 10.0)
            assert [made.rollout.sample.rollout_id for made in collected] == [each.rollout_id for each in batch.samples]

    run(scenario)
