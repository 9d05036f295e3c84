"""From configuration to a queue."""

from typing import Protocol

from quatrain.errors import InvalidInput
from quatrain.queue.memory import MemoryQueue
from quatrain.queue.protocol import RolloutQueue
from quatrain.queue.redis import RedisQueue


class QueueSettings(Protocol):
    """What `open_queue` reads; `quatrain.config.QueueConfig` has it."""

    @property
    def url(self) -> str:
        """`redis://...`, `rediss://...` or `memory://`."""
        ...


def open_queue(config: QueueSettings) -> RolloutQueue:
    """Open the configured queue, without connecting yet. Raises InvalidInput."""
    scheme = config.url.partition("://")[0]
    if scheme == "memory":
        return MemoryQueue()
    if scheme in ("redis", "rediss"):
        return RedisQueue(config.url)
    raise InvalidInput(
        "queue.url: redis://host:port, rediss://host:port and memory:// are known"
    )  # may hold a password
