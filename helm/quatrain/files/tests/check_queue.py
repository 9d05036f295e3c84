"""A task goes through the streams of Redis, there and back, in a pool and a job of the test's own."""

import asyncio
import sys
import uuid

import redis.asyncio

from quatrain.config import load_config
from quatrain.errors import QuatrainError
from quatrain.queue import open_queue
from quatrain.queue.names import tasks_key

SECONDS = 5.0


async def round_trip() -> None:
    """Send a task there and back. Raises QuatrainError without a fit Redis, AssertionError for a loss or repetition."""
    config = load_config("test", []).config.queue
    name = f"helm-test-{uuid.uuid4().hex[:12]}"
    queue = open_queue(config)
    try:
        await queue.check()
        await queue.open_job(name)
        await queue.add_task(name, name, b"task")
        leases = await queue.lease(name, name, count=2, block=SECONDS)
        assert [lease.payload for lease in leases] == [b"task"], f"leased {leases} instead of one task"
        assert await queue.complete(leases[0], [b"result"]), "the lease was lost"
        results = await queue.read_results(name, "0", count=2, block=SECONDS)
        assert [payload for _, payload in results] == [b"result"], f"read {results} instead of one result"
    finally:
        await queue.close_job(name)
        await queue.close()
        client = redis.asyncio.from_url(config.url)
        await client.delete(tasks_key(name))
        await client.aclose()


def main() -> int:
    """Return 0 when the task came back."""
    try:
        asyncio.run(round_trip())
    except (QuatrainError, AssertionError) as error:
        print(error)
        return 1
    print("a task was added, leased, completed, and its result read")
    return 0


if __name__ == "__main__":
    sys.exit(main())
