"""The line of jobs at a pool: what an orchestrator knows of a job that it does not own, and how many may run."""

import time
from dataclasses import dataclass
from enum import Enum

from quatrain.joblog import JobLog
from quatrain.joblog.jobs import IndexStamp
from quatrain.orchestrator.plan import Plan


class AdmissionState(Enum):
    """How a job stands to the places of its pool."""

    HELD = "somebody says that it owns the job: takes a place"
    LOST = "begun, but nobody says that it owns the job: keeps its place for who takes it over"
    WAITING = "not begun, or paused and resumed: takes a place when it is its turn"
    PAUSED = "takes no place"
    UNWANTED = "neither begun nor wanted any more: an owner ends it at once and needs no place for that"


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
        """At least 1, so that there is an owner who says what is missing."""
        return max(1, min(self.job_slots, self.learners))

    def reason(self, taken: int, before: int) -> str:
        """What a waiting job says."""
        queue = f"{before} {'job' if before == 1 else 'jobs'} before it" if before else "it is next"
        return (
            f"waits for a place in pool {self.pool!r}: {taken} of {self.count} taken "
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
    """None while somebody else holds the job: what was read of it grows old, and is read anew when it is needed."""
    read_at: float = 0.0
    _alone: float = 0.0
    _looked: float | None = None

    @property
    def admission_state(self) -> AdmissionState:
        """See `AdmissionState`."""
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
        """Lease times that the job must have looked lost before it is taken over.

        Twice as many with each owner that a suspect loses: what kills owners shall not keep them all busy, and a pool
        that loses them for another reason gets time. One where it only has to be ended.
        """
        assert self.log is not None, "a job that looks lost has been read"
        view = self.log.view
        if view.intents.cancel is not None or view.takeovers >= MAX_LOST_OWNERS:
            return 1
        return int(2 ** max(0, view.takeovers - SUSPECT_AFTER))

    @property
    def suspect(self) -> bool:
        """The job may be what kills its owners."""
        return self.log is not None and self.log.view.takeovers >= SUSPECT_AFTER

    def begin_again(self) -> None:
        """The job has a living owner, or nobody could have told."""
        self._alone, self._looked = 0.0, None

    def hold(self) -> None:
        """Somebody owns it."""
        self.log = None
        self.begin_again()

    def look(self, most: float) -> float:
        """Seconds that the job has looked lost. A look adds at most `most`: if this process itself stood still, the
        owner may have, too."""
        now = time.monotonic()
        self._alone += 0.0 if self._looked is None else min(now - self._looked, most)
        self._looked = now
        return self._alone
