"""A batch that is being collected: what is expected of it, what has come, what is missing.

Each expected sample is in exactly one of three places:

| place | how it got there | how it leaves |
|---|---|---|
| missing | at first; `lose`, when its object cannot be had | `take` |
| `unread` | an entry named the object that holds it | `accept`, `lose` |
| `results` | an entry, or its object, held it | never: the first result of a rollout id wins |

`missing_of[chunk]` counts the samples of a chunk that are missing, so the chunks that have to be made are those with a
count above 0. Whatever is told of a batch may be told twice, in any order.
"""

import asyncio
import time
from collections import Counter
from dataclasses import dataclass, field

from quatrain.errors import QuatrainError, RunFailed
from quatrain.orchestrator.rollout.samples import Failed, Result, Stored
from quatrain.orchestrator.rollout.sampling import ExpectedBatch
from quatrain.telemetry.logging import get_logger

log = get_logger("collector")

MAX_LOSSES = 3
"""Times that a chunk is enqueued again at once because its task, or an object of its results, is gone or damaged."""


@dataclass
class PendingBatch:
    """The state of one batch; the module says what holds between its fields."""

    batch: ExpectedBatch
    chunk_of: dict[str, int]
    """The chunk of each expected rollout id."""
    missing_of: Counter[int]
    results: dict[str, bytes] = field(default_factory=dict)
    """The results by rollout id, as bytes (see `CollectedSamples`)."""
    unread: dict[str, Stored] = field(default_factory=dict)
    """By rollout id, the entries whose result lies in an object that is not read yet."""
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

    @staticmethod
    def of(batch: ExpectedBatch, chunk_size: int) -> "PendingBatch":
        """Return a batch of which nothing has come. For a thread: it walks over every sample."""
        chunk_of = {sample.rollout_id: index // chunk_size for index, sample in enumerate(batch.samples)}
        return PendingBatch(batch, chunk_of, Counter(chunk_of.values()))

    def silent_seconds(self) -> float:
        """Return the seconds since a result last came."""
        return time.monotonic() - self.heard

    def missing_chunks(self) -> set[int]:
        """Return the chunks of which a sample is neither here nor in an object."""
        return {chunk for chunk, count in self.missing_of.items() if count > 0}

    def take(self, entry_id: str, result: Result, data: bytes) -> None:
        """Take an entry of the queue, read and as it came. One of another version than the batch's is not ours."""
        self.entries.append(entry_id)
        self.has_objects |= isinstance(result, Stored)
        policy = result.place.policy
        if (policy.digest, policy.policy_version) != (self.batch.policy.digest, self.batch.policy_version):
            return
        if isinstance(result, Failed):
            self._fail(result)
        elif isinstance(result, Stored):
            rollout = result.sample.rollout_id
            if rollout in self.chunk_of and rollout not in self.results and rollout not in self.unread:
                self.unread[rollout] = result
                self.missing_of[self.chunk_of[rollout]] -= 1
        else:
            self.accept(result.rollout.sample.rollout_id, data)

    def accept(self, rollout: str, data: bytes) -> None:
        """Take a whole result, which can be read."""
        if rollout not in self.chunk_of or rollout in self.results:
            return
        if self.unread.pop(rollout, None) is None:
            self.missing_of[self.chunk_of[rollout]] -= 1
        self.results[rollout] = data
        self.progress = self.heard = time.monotonic()
        if len(self.results) == len(self.chunk_of):
            self.done.set()

    def lose(self, rollout: str) -> None:
        """Note that the object of a result cannot be read: its chunk is made again like one that never came.

        That happens at once for a few times, and after that when the batch counts as stalled.
        """
        if self.unread.pop(rollout, None) is not None:
            self.missing_of[self.chunk_of[rollout]] += 1
            self.lose_chunk(self.chunk_of[rollout])

    def lose_chunk(self, chunk: int) -> None:
        """Note that the queue has lost a task, or that its results cannot be read."""
        self.tasks.pop(chunk, None)
        if chunk in self.unsent:
            return
        self.losses[chunk] += 1
        where = {"purpose": self.batch.purpose, "step": self.batch.step, "chunk": chunk, "losses": self.losses[chunk]}
        if self.losses[chunk] > MAX_LOSSES:
            log.error("a chunk is lost again and again: it waits until the batch has stalled", **where)
            return
        log.warning("a chunk is lost: it is enqueued again", **where)
        self.unsent.add(chunk)

    def _fail(self, failure: Failed) -> None:
        if self.missing_of[failure.place.chunk] <= 0:
            return  # Another worker has done the task meanwhile.
        self.error = RunFailed(
            f"{self.batch.purpose} of step {self.batch.step} with policy version {self.batch.policy_version} failed: "
            f"{failure.message}",
            reason=failure.reason,
        )
        self.done.set()
