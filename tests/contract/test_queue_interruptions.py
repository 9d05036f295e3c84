"""What every rollout queue must do when callers wait, are cancelled, or everything is wiped under them."""

import asyncio
import time

from tests.contract.queues import Bench, lease_one, results_of

from quatrain.queue import RolloutQueue


def test_waiting_reads_wake_up_and_let_others_work(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        began = time.monotonic()
        assert await queue.lease("pool", "w", count=1, block=0.1) == []
        assert await queue.read_results("job", "0", count=1, block=0.1) == []
        assert 0.15 < time.monotonic() - began < 2

        leasing = [asyncio.create_task(queue.lease("pool", f"w{n}", count=1, block=2.0)) for n in range(3)]
        reading = asyncio.create_task(queue.read_results("job", "0", count=1, block=2.0))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        for _ in range(3):
            await queue.add_task("pool", "job", b"task")
        leases = [lease for found in await asyncio.gather(*leasing) for lease in found]
        assert len(leases) == 3
        assert await queue.complete(leases[0], [b"result"])
        assert [data for _, data in await reading] == [b"result"]
        assert time.monotonic() - began < 1

    bench.run(scenario)


def test_a_cancelled_wait_does_no_harm(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        for _ in range(5):
            waits = [
                asyncio.create_task(queue.lease("pool", "w", count=1, block=0.3)),
                asyncio.create_task(queue.read_results("job", "0", count=1, block=0.3)),
            ]
            await asyncio.sleep(0.01)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
        await asyncio.sleep(0.4)
        await queue.add_task("pool", "job", b"task")
        assert await queue.complete(await lease_one(queue, "w"), [b"result"])
        assert await results_of(queue) == [b"result"]

    bench.run(scenario)


def test_a_caller_that_is_cancelled_ends(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        async def hold(job: str) -> None:
            while True:
                await queue.hold(job, "owner", 60)
                await asyncio.sleep(0)

        for number in range(50):
            holding = [asyncio.create_task(hold(f"job-{place}")) for place in range(4)]
            await asyncio.sleep(0.0005 * (number % 10))
            for task in holding:
                task.cancel()
            _, alive = await asyncio.wait(holding, timeout=10.0)
            assert not alive, f"round {number}"

    bench.run(scenario)


def test_a_wipe_is_noticed_and_everything_works_again(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.open_job("job")
        sentinel = await queue.sentinel()
        assert sentinel == await queue.sentinel() != ""
        for _ in range(2):
            await queue.add_task("pool", "job", b"lost")
        lease = await lease_one(queue, "w")
        await queue.hold("job", "owner", 60)

        await asyncio.to_thread(bench.wipe)

        assert await queue.sentinel() != sentinel
        assert not await queue.renew(lease)
        assert not await queue.complete(lease, [b"late"])
        assert await queue.reclaim("pool", "w", idle=0, count=9) == []
        assert await queue.holder("job") is None
        assert (await queue.backlog("pool")).waiting == 0
        assert await results_of(queue) == []
        await queue.open_job("job")
        await queue.add_task("pool", "job", b"again")
        again = await lease_one(queue, "w")
        assert again.payload == b"again"
        assert await queue.complete(again, [b"result"])
        assert await results_of(queue) == [b"result"]

    bench.run(scenario)


def test_a_wipe_under_a_waiting_worker_does_not_strand_it(bench: Bench) -> None:
    async def scenario(queue: RolloutQueue) -> None:
        await queue.lease("pool", "w", count=1, block=0)  # the group is there
        waiting = asyncio.create_task(queue.lease("pool", "w", count=1, block=2.0))
        await asyncio.sleep(0.1)
        await asyncio.to_thread(bench.wipe)
        await queue.add_task("pool", "job", b"after the wipe")

        found = await waiting or await queue.lease("pool", "w", count=1, block=2.0)

        assert [lease.payload for lease in found] == [b"after the wipe"]

    bench.run(scenario)
