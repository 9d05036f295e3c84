"""Work in flight: tasks of a pool and results of a job, on Redis Streams or in memory.

Nothing here is durable and nothing here decides: a wiped queue costs only time, because the owner of a job enqueues
what is missing again, and duplicates are harmless, because the owner collects by rollout id.
"""

from quatrain.queue.opening import open_queue
from quatrain.queue.protocol import Backlog, Lease, RolloutQueue

__all__ = ["Backlog", "Lease", "RolloutQueue", "open_queue"]
