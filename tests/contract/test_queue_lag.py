"""Redis always knows how many tasks wait (`lag` of the group), in whatever order they are completed: KEDA reads it."""

import random

import pytest
from tests.contract.queues import KINDS, Bench

from quatrain.queue import Backlog, Lease, RolloutQueue
from quatrain.queue.names import tasks_key
from quatrain.queue.redis import RedisQueue


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "memory"])
@pytest.mark.parametrize("closed", [False, True], ids=["open", "cancelled"])
def test_the_lag_is_known_in_whatever_order_tasks_are_completed(
    kind: str, closed: bool, request: pytest.FixtureRequest
) -> None:
    dice = random.Random(1)

    async def scenario(queue: RolloutQueue) -> None:
        assert isinstance(queue, RedisQueue)
        await queue.open_job("job")
        await queue.lease("pool", "worker-0", count=1, block=0)  # the first look makes the group
        if closed:
            await queue.close_job("job")
        entries: list[str] = []
        held: list[Lease] = []
        waiting = 0
        for _ in range(600):
            what = dice.random()
            if what < 0.4:
                entries.append(await queue.add_task("pool", "job", b"task"))
                waiting += 1
            elif what < 0.7:
                leases = await queue.lease("pool", f"worker-{dice.randrange(4)}", count=1, block=0)
                held += leases
                waiting -= len(leases)
            elif held:
                lease = held.pop(dice.randrange(len(held)))
                assert await queue.complete(lease, [b"result"])
                assert await queue.gone("pool", [lease.entry_id]) == [lease.entry_id]
            (group,) = await queue._run("XINFO GROUPS", tasks_key("pool"))
            assert group["lag"] == waiting
            assert await queue.backlog("pool") == Backlog(waiting, len(held))
        assert waiting > 10
        assert len(held) > 10
        assert len(await queue.gone("pool", entries)) == len(entries) - waiting - len(held)

        for lease in held:
            assert await queue.complete(lease, [])
        assert await queue._run("XLEN", tasks_key("pool")) == waiting, "what is completed leaves the stream"

    bench = Bench(request.getfixturevalue(f"{kind}_server").url)
    bench.wipe()
    bench.run(scenario)
