"""Waits until the object store answers, and the queue where it is used: a pod then starts once instead of failing
until they are there. Makes the bucket of a bundled store."""

import argparse
import asyncio
import sys
import time

from quatrain.config import QueueConfig, load_config
from quatrain.errors import QuatrainError, Unavailable
from quatrain.storage import open_store

PAUSE_SECONDS = 2.0


def main() -> int:
    """Return 0 once everything answers, 1 when it does not in time or refuses us."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--make-bucket", action="store_true")
    parser.add_argument("--queue", action="store_true")
    given = parser.parse_args()
    config = load_config("wait", []).config
    deadline = time.monotonic() + given.seconds
    while True:
        try:
            print("found", open_store(config.storage, create_bucket=given.make_bucket).name)
            if given.queue:
                asyncio.run(check_queue(config.queue))
                print("found the queue")
        except Unavailable as error:
            print(error.message, file=sys.stderr, flush=True)
            if time.monotonic() > deadline:
                return 1
            time.sleep(PAUSE_SECONDS)
        except QuatrainError as error:
            print(error.message, file=sys.stderr)
            return 1
        else:
            return 0


async def check_queue(config: QueueConfig) -> None:
    """Check the queue. Only images of services that use it have its client. Raises Unavailable, InvalidInput."""
    from quatrain.queue import open_queue

    queue = open_queue(config)
    try:
        await queue.check()
    finally:
        await queue.close()


if __name__ == "__main__":
    sys.exit(main())
