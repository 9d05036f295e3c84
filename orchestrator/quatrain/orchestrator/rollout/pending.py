"""A batch that is being collected: what is expected of it, what has come, what is missing."""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from quatrain.errors import QuatrainError, RunFailed
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import rollout_pb2

log = get_logger("collector")

MOST_LOSSES = 3
"""Times that a chunk is enqueued again at once because its task, or an object of its results, is gone or damaged."""


@dataclass
class PendingBatch:
    """The state of one batch. Whatever is told of it may be told twice, in any order."""

    batch: ExpectedBatch
    chunk_of: dict[str, int]
    """The chunk of each expected rollout id."""
    results: dict[str, rollout_pb2.RolloutResult] = field(default_factory=dict)
    unread: dict[str, rollout_pb2.RolloutResult] = field(default_factory=dict)
    """By rollout id, the entries whose result lies in an object that has yet to be read."""
    entries: list[str] = field(default_factory=list)
    """All entries of the queue that were of this batch."""
    has_objects: bool = False
    unsent: set[int] = field(default_factory=set)
    """Chunks whose tasks have yet to be enqueued: what the queue refuses now is sent later."""
    tasks: dict[int, str] = field(default_factory=dict)
    """Entry ids of the tasks that the queue should hold, by chunk."""
    losses: Counter[int] = field(default_factory=Counter)
    done: asyncio.Event = field(default_factory=asyncio.Event)
    error: QuatrainError | None = None
    progress: float = field(default_factory=time.monotonic)
    """When a task was last enqueued or a result last came (monotonic)."""
    heard: float = field(default_factory=time.monotonic)
    """When a result last came (monotonic); at first when the batch was made."""

    def silent_seconds(self) -> float:
        """Seconds since a result last came."""
        return time.monotonic() - self.heard

    def missing_chunks(self) -> set[int]:
        """Chunks of which a sample is neither here nor in an object."""
        have = self.results.keys() | self.unread.keys()
        return {chunk for rollout, chunk in self.chunk_of.items() if rollout not in have}

    def take(self, entry_id: str, entry: rollout_pb2.RolloutResult) -> None:
        """An entry of the queue; it holds a result or names the object that does. Another version's is not ours."""
        self.entries.append(entry_id)
        self.has_objects |= entry.HasField("object")
        version = (self.batch.policy.digest, self.batch.policy_version)
        if (entry.policy.digest, entry.policy.policy_version) != version:
            return
        rollout = entry.row.rollout_id
        if not entry.HasField("object"):
            self.accept(entry)
        elif rollout in self.chunk_of and rollout not in self.results:
            self.unread.setdefault(rollout, entry)

    def accept(self, result: rollout_pb2.RolloutResult) -> None:
        """A whole result. The first one of a rollout id wins."""
        if result.error_reason:
            self._fail(result)
            return
        rollout = result.row.rollout_id
        if rollout not in self.chunk_of or rollout in self.results:
            return
        self.results[rollout] = result
        self.progress = self.heard = time.monotonic()
        if len(self.results) == len(self.chunk_of):
            self.done.set()

    def lose(self, rollout: str) -> None:
        """The object of a result cannot be had: its chunk is made again like one that never came.

        At once for a few times; after that when the batch counts as stalled.
        """
        if rollout not in self.results:
            self.lose_chunk(self.chunk_of[rollout])

    def lose_chunk(self, chunk: int) -> None:
        """As `lose`, of a task that the queue has lost or whose results cannot be had."""
        self.tasks.pop(chunk, None)
        if chunk in self.unsent:
            return
        self.losses[chunk] += 1
        where = {"purpose": self.batch.purpose, "step": self.batch.step, "chunk": chunk, "losses": self.losses[chunk]}
        if self.losses[chunk] > MOST_LOSSES:
            log.error("a chunk is lost again and again: it waits until the batch has stalled", **where)
            return
        log.warning("a chunk is lost: it is enqueued again", **where)
        self.unsent.add(chunk)

    def _fail(self, failure: rollout_pb2.RolloutResult) -> None:
        if failure.chunk not in self.missing_chunks():
            return  # Another worker has done the task meanwhile.
        self.error = RunFailed(
            f"{self.batch.purpose} of step {self.batch.step} with policy version {self.batch.policy_version} failed: "
            f"{failure.error_message}",
            reason=failure.error_reason,
        )
        self.done.set()
