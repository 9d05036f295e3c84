"""What a check found: violations, what was decided, and what was not and why."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

from tests.chaos.checker.history import History
from tests.chaos.checker.objects import Objects
from tests.chaos.checker.observed import Observed
from tests.chaos.checker.outcome import Outcome
from tests.chaos.checker.tables import Batch, read_batches

INVARIANTS = {
    "I1": "every rollout id is in at most one sealed batch",
    "I2": "every expected rollout of a sealed step stands in its batch, and the sums agree",
    "I3": "an accepted job is listed forever and ends or runs; the same request is the same job",
    "I4": "policy versions rise by one; a sample's version is the pinned one",
    "I5": "no effect of a lower epoch or attempt after a higher one",
    "I6": "what an event names and retention keeps is there, and its hash verifies",
    "I7": "killed and resumed equals unbroken",
    "I8": "WatchJob is ordered, resumable, and delivers the terminal event",
    "I9": "after the job Redis holds nothing of it; memory was bounded",
    "I10": "recovery within its budget, no retry storm",
    "I11": "cancel takes effect in bounded time",
    "I12": "no non-finite number reaches optimizer state",
}


@dataclass(frozen=True)
class Case:
    """Everything that a judge may look at."""

    objects: Objects
    job: str
    history: History
    observed: Observed
    unbroken: Outcome | None

    @cached_property
    def batches(self) -> list[Batch]:
        """Sealed batches and evaluations that can be read, in the order of the log."""
        return read_batches(self.objects, self.history, "batch_sealed", "evaluated")

    @property
    def sealed(self) -> list[Batch]:
        """The sealed batches among them."""
        return [batch for batch in self.batches if batch.event.type == "batch_sealed"]


@dataclass(frozen=True)
class Part:
    """One way in which an invariant can be broken.

    `why_not` says why the part cannot be decided, empty when it can; `judge` yields a text for each violation.
    """

    invariant: str
    name: str
    why_not: Callable[[Case], str]
    judge: Callable[[Case], Iterable[str]]


@dataclass(frozen=True)
class Violation:
    """An invariant that does not hold, and what shows it."""

    invariant: str
    part: str
    text: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.part}: {self.text}"


@dataclass
class Verdict:
    """The result of a check. Parts are named `I4 sealed versions`."""

    violations: list[Violation] = field(default_factory=list)
    decided: list[str] = field(default_factory=list)
    undecided: dict[str, str] = field(default_factory=dict)
    """Part to the reason why it could not be decided."""

    @property
    def broken(self) -> set[str]:
        """The invariants with a violation."""
        return {violation.invariant for violation in self.violations}

    @property
    def open(self) -> list[str]:
        """Invariants of which no part was decided."""
        decided = {name.partition(" ")[0] for name in self.decided}
        return [invariant for invariant in INVARIANTS if invariant not in decided]


def always(_: Case) -> str:
    """For parts that the store alone decides."""
    return ""
