"""Several orchestrators on one store and queue: one owner a job, takeovers, stale owners, the line for learners."""

import asyncio
from pathlib import Path

from tests.integration.orchestrator.faults import FlakyQueue, FrozenStore, soon
from tests.integration.orchestrator.test_learner_losses import finish, unbroken
from tests.integration.orchestrator.world import deployment, run

from quatrain.storage.memory import MemoryStore
from quatrain.v1 import rollout_pb2


def test_two_schedulers_share_the_jobs_and_each_job_has_one_owner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=2, learners=2) as world:
            names = [f"job-{number}" for number in range(6)]
            for name in names:
                await world.submit(world.spec(), name)
            for name in names:
                view = await world.end_of(name)
                assert (view.state, view.epoch) == ("SUCCEEDED", 1)
                assert len(world.events(name, "owner_taken")) == 1

    run(scenario)


def test_another_orchestrator_takes_over_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            held = asyncio.create_task(finish(world, world.spec()))
            await world.until(lambda: world.view().step >= 1, "step 1")
            world.start_scheduler("owner-1")
            await world.schedulers[0].stop()
            assert await held == expected
            owners = [event.data["owner"] for event in world.events(kind="owner_taken")]
            assert owners == ["owner-0", "owner-1"]
            assert world.view().attempt == 2

    run(scenario)


def test_a_stale_owner_that_wakes_up_writes_nothing_that_counts(tmp_path: Path) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            frozen = FrozenStore(world.store) if isinstance(world.store, MemoryStore) else None
            assert frozen is not None
            stale = world.start_scheduler("stale", store=frozen)
            held = asyncio.create_task(finish(world, world.spec()))
            await world.until(lambda: world.view().step >= 1, "step 1")
            frozen.freeze()
            # A stopped process renews nothing; here only its store stands still, so its hint is taken away.
            stale.context.queue.hold = _nothing  # type: ignore[method-assign]
            await asyncio.sleep(0.6)
            world.queue.hold = MemoryHold(world.queue)  # type: ignore[method-assign]
            world.start_scheduler("heir")
            assert await held == expected
            count = len(world.events())
            frozen.thaw()
            await soon(lambda: not stale._owned, "the stale owner still works")
            assert len(world.events()) == count
            assert [key for key in frozen.writes_after if "/events/" in key] == []
            heir = world.view().epoch
            taken = world.events(kind="owner_taken")[-1].revision
            late = [event for event in world.events() if event.revision > taken and 0 < event.epoch < heir]
            assert (heir, late) == (2, [])

    run(scenario)


async def _nothing(job: str, owner: str, ttl: float) -> bool:
    return False


class MemoryHold:
    """`hold` again, as the class has it."""

    def __init__(self, queue: FlakyQueue | object) -> None:
        self._hold = type(queue).hold  # type: ignore[attr-defined]
        self._queue = queue

    async def __call__(self, job: str, owner: str, ttl: float) -> bool:
        if owner == "stale":
            return False
        held: bool = await self._hold(self._queue, job, owner, ttl)
        return held


def test_an_owner_keeps_its_job_when_the_queue_was_away_longer_than_the_lease(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            world.start_scheduler("owner-0")
            await world.submit(world.spec())
            await world.until(lambda: world.view().state == "RUNNING", "RUNNING")
            world.start_scheduler("owner-1")
            await asyncio.sleep(0.2)
            world.queue.wipe()
            queue.refusals["holders"] = 30  # about 1.5 s; the lease is 0.5 s
            await soon(lambda: queue.refusals["holders"] == 0, "the queue came back")
            await asyncio.sleep(0.3)
            world.start_worker()
            view = await world.end_of()
            assert (view.state, view.epoch, view.owner) == ("SUCCEEDED", 1, "owner-0")

    run(scenario)


def test_learners_go_to_the_waiting_job_of_the_highest_priority(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0) as world:
            # Places for three, two of which never answer: so jobs are owned before a learner is free.
            world.schedulers[0].context.learners._targets = (*world.learner_addresses, "127.0.0.1:9", "127.0.0.1:10")
            await world.submit(world.spec(), "first")
            await world.until(lambda: world.view("first").state == "RUNNING", "RUNNING")
            for name, priority in (("later", 0), ("last", 0), ("urgent", 5), ("idle", -1)):
                await world.submit({**world.spec(), "priority": priority}, name)
            await world.until(lambda: all(world.view(n).state == "QUEUED" for n in ("later", "urgent")), "QUEUED")
            await world.until(lambda: "learner" in world.view("later").conditions, "its reason")
            world.start_worker()
            for name in ("first", "later", "last", "urgent", "idle"):
                view = await world.end_of(name)
                assert (view.state, view.conditions) == ("SUCCEEDED", {})
            assert world.learners[0].opened == ["first", "urgent", "later", "last", "idle"]

    run(scenario)


def test_with_staleness_the_next_step_is_sampled_before_this_one_trains(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world:
            queue = world.queue = FlakyQueue()
            world.start_scheduler()
            await world.submit(world.spec(staleness=1, steps=4))
            await soon(lambda: len(queue.added) == 4, "the tasks of two steps")
            world.start_worker()
            view = await world.end_of()
            assert view.state == "SUCCEEDED"
            tasks = [rollout_pb2.RolloutTask.FromString(payload) for payload in queue.added]
            versions = {task.step: task.policy.policy_version for task in tasks}
            assert versions == {1: 0, 2: 0, 3: 1, 4: 2}
            assert [task.step for task in tasks] == [1, 1, 2, 2, 3, 3, 4, 4]
            assert {step: ref.policy_version for step, ref in view.sealed.items()} == versions
            policies = {event.data["policy"]["digest"] for event in world.events(kind="step_completed")[:2]}
            policies.add(view.policies[0].digest)
            assert len(policies) == 3
            assert {task.policy.digest for task in tasks} == policies
            assert all("sampler/mismatch_mean" in row.values for row in view.metrics["ppo"])

    run(scenario)
