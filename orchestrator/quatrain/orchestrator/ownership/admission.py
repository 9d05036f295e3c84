"""The admission of jobs to a pool: what an orchestrator knows of a job that it does not own, and how many may run.

The state of an unowned job is read off its log; of these rows the first one that holds counts:

| state | the log | slot of the pool | what the scheduler does |
|---|---|---|---|
| HELD | not read: somebody says that it owns the job | takes one | reads the log when the hint is gone |
| LOST | has an owner | keeps one | takes it over after `leases` lease times without a hint |
| UNWANTED | has no owner, and a cancel | none | owns it at once, to end it |
| PAUSED | has no owner, says PAUSED | none | reads the log again when the index entry changes |
| WAITING | has no owner | one when it is its turn | reserves it, counts again, then owns it or gives it back |

What holds together in an `UnownedJob`:
- `log` is None if and only if the job is HELD. `hold` makes it so; `Scheduler._read` sets `log`, `stamp` and `read_at`
  together.
- `_alone`, the seconds without a hint, grows by `look` only. `hold` sets it to 0, and so does `begin_again` when the
  queue or the store was away, since nobody could renew a hint then.
"""

import time
from dataclasses import dataclass
from enum import Enum

from quatrain.joblog import JobLog
from quatrain.joblog.jobs import IndexStamp
from quatrain.orchestrator.plan import Plan


class AdmissionState(Enum):
    """How a job stands to the slots of its pool; the module has the table."""

    HELD = "somebody says that it owns the job: takes a slot"
    LOST = "begun, but nobody says that it owns the job: keeps its slot for who takes it over"
    WAITING = "not begun, or paused and resumed: takes a slot when it is its turn"
    PAUSED = "takes no slot"
    UNWANTED = "neither begun nor wanted any more: an owner ends it at once and needs no slot for that"


@dataclass(frozen=True)
class PoolCapacity:
    """How many jobs of a pool run at once: each needs its policies in generation, and a learner."""

    pool: str
    job_slots: int = 0
    """0: not known yet."""
    learners: int = 0
    """0: not known yet, or none."""

    @property
    def count(self) -> int:
        """Return the slots: at least 1, so that there is an owner who says what is missing."""
        return max(1, min(self.job_slots, self.learners))

    def reason(self, taken: int, before: int) -> str:
        """Return why a job waits that has `before` jobs before it."""
        queue = f"{before} {'job' if before == 1 else 'jobs'} before it" if before else "it is next"
        return (
            f"waits for a slot in pool {self.pool!r}: {taken} of {self.count} taken "
            f"(job slots of generation: {self.job_slots}, learners: {self.learners}); {queue}"
        )


MAX_LOST_OWNERS = 6
"""Owners in a row without a sealed batch, a finished step or an evaluation, past which the job itself is the cause."""
SUSPECT_AFTER = 2
"""Lost owners in a row after which a job may be what kills them."""


@dataclass
class UnownedJob:
    """An unfinished job of the pool that nobody here owns."""

    plan: Plan
    stamp: IndexStamp
    """The index entry when the log was read."""
    log: JobLog | None = None
    """None while somebody else holds the job: what was read of it would grow old."""
    read_at: float = 0.0
    _alone: float = 0.0
    _looked: float | None = None

    @property
    def admission_state(self) -> AdmissionState:
        """Return the state by the table of the module."""
        if self.log is None:
            return AdmissionState.HELD
        view = self.log.view
        if view.owner:
            return AdmissionState.LOST
        if view.intents.cancel is not None:
            return AdmissionState.UNWANTED
        return AdmissionState.PAUSED if view.state == "PAUSED" else AdmissionState.WAITING

    @property
    def leases(self) -> int:
        """Return how many lease times the job must have looked lost before it is taken over.

        They double with each owner that a suspect loses: a job that kills owners must not keep them all busy, and a
        pool that loses them for another reason gets time. It is one where the job only has to be ended.
        """
        assert self.log is not None, "a job that looks lost has been read"
        view = self.log.view
        if view.intents.cancel is not None or view.owners_without_progress >= MAX_LOST_OWNERS:
            return 1
        return int(2 ** max(0, view.owners_without_progress - SUSPECT_AFTER))

    @property
    def suspect(self) -> bool:
        """Return whether the job may be what kills its owners."""
        return self.log is not None and self.log.view.owners_without_progress >= SUSPECT_AFTER

    def begin_again(self) -> None:
        """Restart the count of `look`: the job has a living owner, or nobody could have told."""
        self._alone, self._looked = 0.0, None

    def hold(self) -> None:
        """Note that somebody owns the job."""
        self.log = None
        self.begin_again()

    def look(self, most: float) -> float:
        """Return the seconds that the job has looked lost. One look adds at most `most`: if this process itself stood
        still, the owner may have, too."""
        now = time.monotonic()
        self._alone += 0.0 if self._looked is None else min(now - self._looked, most)
        self._looked = now
        return self._alone
