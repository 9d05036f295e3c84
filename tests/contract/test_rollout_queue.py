"""What every rollout queue must do with tasks, results, workers and jobs."""

import asyncio

import pytest
from tests.contract.queues import Bench, lease_one, results_of

from quatrain.errors import InvalidInput
from quatrain.queue import Backlog, Lease, RolloutQueue


def test_check_accepts_it(bench: Bench) -> None:
    bench.run(lambda queue: queue.check())


def test_a_task_becomes_results(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        entry_id = await queue.add_task("pool", "job", b"\0task")
        lease = await lease_one(queue, "w1")
        assert (lease.entry_id, lease.job, lease.payload) == (entry_id, "job", b"\0task")
        assert (lease.pool, lease.worker) == ("pool", "w1")

        assert await queue.complete(lease, [b"r1", b"\0r2", b""])

        assert await results_of(queue) == [b"r1", b"\0r2", b""]
        assert await queue.lease("pool", "w1", count=9, block=0) == []
        assert await queue.reclaim("pool", "w2", idle=0, count=9) == []

    bench.run(scenario)


def test_each_task_goes_to_one_worker_in_order(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        for number in range(40):
            await queue.add_task("pool", "job", b"%d" % number)
        await queue.add_task("other", "job", b"other pool")

        async def work(worker: str) -> list[Lease]:
            taken: list[Lease] = []
            while leases := await queue.lease("pool", worker, count=3, block=0):
                taken += leases
                await asyncio.sleep(0)
            return taken

        shares = await asyncio.gather(*(work(f"w{number}") for number in range(4)))

        for share in shares:
            assert share == sorted(share, key=lambda lease: int(lease.payload))
        assert sorted(int(lease.payload) for share in shares for lease in share) == list(range(40))
        assert (await queue.backlog("other")).waiting == 1

    bench.run(scenario)


def test_backlog_counts_what_waits_and_what_is_leased(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert await queue.backlog("pool") == Backlog(waiting=0, leased=0)
        for _ in range(3):
            await queue.add_task("pool", "job", b"task")
        assert await queue.backlog("pool") == Backlog(waiting=3, leased=0)
        leases = await queue.lease("pool", "w", count=2, block=0)
        assert await queue.backlog("pool") == Backlog(waiting=1, leased=2)
        for lease in reversed(leases):
            assert await queue.complete(lease, [])
        assert await queue.backlog("pool") == Backlog(waiting=1, leased=0)
        await queue.add_task("pool", "job", b"task")
        assert await queue.backlog("pool") == Backlog(waiting=2, leased=0)

    bench.run(scenario)


def test_a_silent_worker_loses_its_task_and_a_renewing_one_keeps_it(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        for _ in range(2):
            await queue.add_task("pool", "job", b"task")
        silent, renewing = await lease_one(queue, "silent"), await lease_one(queue, "renewing")
        assert await queue.reclaim("pool", "other", idle=0.3, count=9) == []
        await asyncio.sleep(0.35)
        assert await queue.renew(renewing)

        (taken,) = await queue.reclaim("pool", "other", idle=0.3, count=9)

        assert (taken.entry_id, taken.payload, taken.worker) == (silent.entry_id, b"task", "other")
        assert not await queue.renew(silent)
        assert not await queue.complete(silent, [b"late"])
        assert await queue.renew(renewing)
        assert await queue.complete(taken, [b"taken"])
        assert await queue.complete(renewing, [b"renewed"])
        assert await results_of(queue) == [b"taken", b"renewed"]

    bench.run(scenario)


def test_a_worker_that_takes_its_own_task_over_stays_the_holder(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.add_task("pool", "job", b"task")
        lease = await lease_one(queue, "w")
        for _ in range(5):
            assert await queue.renew(lease)
        (again,) = await queue.reclaim("pool", "w", idle=0, count=1)
        assert again == lease
        assert await queue.complete(lease, []), "the same worker is still the holder"

    bench.run(scenario)


def test_completing_twice_stores_once(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        await queue.add_task("pool", "job", b"task")
        lease = await lease_one(queue, "w")

        first = await asyncio.gather(*(queue.complete(lease, [b"result"]) for _ in range(5)))

        assert sorted(first) == [False] * 4 + [True]
        assert not await queue.complete(lease, [b"result"])
        assert not await queue.renew(lease)
        assert await results_of(queue) == [b"result"]

    bench.run(scenario)


def test_reclaim_takes_no_more_than_asked_for_and_all_in_the_end(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        for number in range(25):
            await queue.add_task("pool", "job", b"%d" % number)
        await queue.lease("pool", "dead", count=25, block=0)
        await asyncio.sleep(0.15)

        assert len(await queue.reclaim("pool", "w", idle=0.1, count=10)) == 10
        assert len(await queue.reclaim("pool", "w", idle=0.1, count=100)) == 15
        assert await queue.reclaim("pool", "w", idle=0.1, count=100) == []

    bench.run(scenario)


def test_results_of_a_closed_job_vanish(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        await queue.open_job("other")
        await queue.hold("job", "owner", 60)
        for _ in range(2):
            await queue.add_task("pool", "job", b"task")
        first, second = await lease_one(queue, "w"), await lease_one(queue, "w")
        assert await queue.complete(first, [b"in time"])

        await queue.close_job("job")

        assert await queue.complete(second, [b"late"]), "the task is removed all the same"
        assert await results_of(queue) == []
        assert await queue.reclaim("pool", "w", idle=0, count=9) == []
        assert await queue.holder("job") is None

    bench.run(scenario)
    assert not {key for key in bench.key_names() if key.endswith(":job")}, "nothing of the job is left"
    assert "quatrain:job:other" in bench.key_names()


def test_a_job_is_open_from_its_opening_to_its_end(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert not await queue.is_open("job")
        for _ in range(2):
            await queue.open_job("job")
            assert await queue.is_open("job")
        assert not await queue.is_open("other")
        await queue.add_task("pool", "other", b"task")
        assert not await queue.is_open("other"), "a task opens nothing"
        await queue.close_job("job")
        assert not await queue.is_open("job")
        await queue.open_job("job")
        await asyncio.to_thread(bench.wipe)
        assert not await queue.is_open("job")

    bench.run(scenario)


def test_only_workers_that_hold_nothing_and_are_silent_are_forgotten(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert await queue.forget_workers("pool", idle=0) == []
        await queue.open_job("job")
        for _ in range(3):
            await queue.add_task("pool", "job", b"task")
        done, also_done, held = [await lease_one(queue, worker) for worker in ("w2", "w1", "holding")]
        assert await queue.complete(done, [])
        assert await queue.complete(also_done, [])
        assert await queue.forget_workers("pool", idle=60) == []
        assert await queue.forget_workers("other", idle=0) == []

        assert await queue.forget_workers("pool", idle=0) == ["w1", "w2"]

        assert await queue.forget_workers("pool", idle=0) == []
        assert await queue.renew(held)
        assert await queue.complete(held, [b"result"])
        assert await results_of(queue) == [b"result"]
        assert await queue.forget_workers("pool", idle=0) == ["holding"]
        await queue.add_task("pool", "job", b"task")
        again = await lease_one(queue, "w1")
        assert await queue.complete(again, [b"again"]), "a forgotten worker may come back"

    bench.run(scenario)


def test_a_worker_leaves_unless_it_holds_a_task(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert not await queue.leave("pool", "never-seen")
        for _ in range(2):
            await queue.add_task("pool", "job", b"task")
        lease, other = await lease_one(queue, "w"), await lease_one(queue, "other")
        assert await queue.complete(other, [])
        assert not await queue.leave("pool", "w")
        assert await queue.renew(lease)
        assert await queue.complete(lease, [])

        assert await queue.leave("pool", "w")

        assert not await queue.leave("pool", "w")
        assert await queue.forget_workers("pool", idle=0) == ["other"], "it alone left"

    bench.run(scenario)


def test_results_come_in_order_from_any_point_and_can_be_forgotten(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        for number in range(3):
            await queue.add_task("pool", "job", b"task")
            assert await queue.complete(await lease_one(queue, "w"), [b"%d-%d" % (number, part) for part in range(2)])
        everything = await queue.read_results("job", "0", count=100, block=0)
        assert [data for _, data in everything] == [b"0-0", b"0-1", b"1-0", b"1-1", b"2-0", b"2-1"]
        assert await queue.read_results("job", "0", count=2, block=0) == everything[:2]
        assert await queue.read_results("job", everything[1][0], count=3, block=0) == everything[2:5]
        assert await queue.read_results("job", everything[-1][0], count=3, block=0.05) == []

        await queue.delete_results("job", [entry_id for entry_id, _ in everything[:4]])
        await queue.delete_results("job", [everything[0][0]])
        await queue.delete_results("job", [])

        assert await queue.read_results("job", "0", count=100, block=0) == everything[4:]

    bench.run(scenario)


def test_a_hold_excludes_others_until_it_is_released_or_runs_out(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert await queue.holder("job") is None
        assert await queue.hold("job", "a", 0.3)
        assert not await queue.hold("job", "b", 60)
        assert await queue.hold("other", "b", 60)
        assert await queue.holder("job") == "a"
        assert await queue.holders(["job", "nobody", "other"]) == {"job": "a", "other": "b"}
        assert await queue.holders([]) == {}
        await asyncio.sleep(0.2)
        assert await queue.hold("job", "a", 0.3), "renewed"
        await asyncio.sleep(0.2)
        assert await queue.holder("job") == "a"
        await asyncio.sleep(0.15)
        assert await queue.holder("job") is None
        assert await queue.hold("job", "b", 60)
        await queue.release("job", "a")
        assert await queue.holder("job") == "b", "only the holder can release"
        await queue.release("job", "b")
        assert await queue.holder("job") is None

    bench.run(scenario)


def test_names_that_are_not_plain_are_refused(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        for name in ("", "a:b", "a b", "../x", "-a", "x" * 129, "é"):
            with pytest.raises(InvalidInput):
                await queue.open_job(name)
            with pytest.raises(InvalidInput):
                await queue.lease(name, "w", count=1, block=0)
            with pytest.raises(InvalidInput):
                await queue.lease("pool", name, count=1, block=0)

    bench.run(scenario)


def test_a_task_is_gone_when_it_is_completed_and_not_while_somebody_holds_it(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        assert await queue.gone("pool", []) == []
        await queue.open_job("job")
        entries = [await queue.add_task("pool", "job", b"task") for _ in range(3)]
        assert await queue.gone("pool", entries) == []
        lease = await lease_one(queue, "w1")
        assert await queue.gone("pool", entries) == []
        await queue.complete(lease, [b"result"])
        assert await queue.gone("pool", entries) == [entries[0]]

    bench.run(scenario)
    bench.wipe()

    async def after(queue: RolloutQueue) -> None:
        assert await queue.gone("pool", ["1-0", "2-0"]) == ["1-0", "2-0"]

    bench.run(after)
