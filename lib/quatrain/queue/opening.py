"""From configuration to a queue."""

from quatrain.config import QueueConfig
from quatrain.errors import InvalidInput
from quatrain.queue.memory import MemoryQueue
from quatrain.queue.protocol import RolloutQueue
from quatrain.queue.redis import RedisQueue


def open_queue(config: QueueConfig) -> RolloutQueue:
    """Open the configured queue, without connecting yet. Raises InvalidInput, whose message never holds the URL."""
    scheme = config.url.partition("://")[0]
    if scheme == "memory":
        return MemoryQueue()
    if scheme in ("redis", "rediss"):
        return RedisQueue(config.url)
    raise InvalidInput("queue.url: redis://host:port, rediss://host:port and memory:// are known")
