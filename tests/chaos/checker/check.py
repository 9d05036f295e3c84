"""Runs every part of every invariant over one job."""

from collections.abc import Iterator

from tests.chaos.checker import artifacts, fencing, finite, forks, kept, outside, rollouts, versions, watching
from tests.chaos.checker.history import read_history
from tests.chaos.checker.objects import Objects
from tests.chaos.checker.observed import Observed
from tests.chaos.checker.outcome import Outcome, differences, outcome, outcome_of
from tests.chaos.checker.verdict import Case, Part, Verdict, Violation

Unbroken = Outcome | tuple[Objects, str] | None
"""The run to compare with: its outcome, or where to read it."""


def _no_unbroken(case: Case) -> str:
    return "" if case.unbroken is not None else "no unbroken run to compare with"


def _same_as_unbroken(case: Case) -> Iterator[str]:
    assert case.unbroken is not None, "see _no_unbroken"
    yield from differences(outcome_of(case.objects, case.history), case.unbroken)


PARTS: list[Part] = [
    *rollouts.PARTS,
    *versions.PARTS,
    *fencing.PARTS,
    *forks.PARTS,
    *kept.PARTS,
    *artifacts.PARTS,
    Part("I7", "same outcome", _no_unbroken, _same_as_unbroken),
    *watching.PARTS,
    *outside.PARTS,
    *finite.PARTS,
]


def check(objects: Objects, job: str, observed: Observed | None = None, unbroken: Unbroken = None) -> list[Violation]:
    """The violations of a job; `examine` says what was decided, too."""
    return examine(objects, job, observed, unbroken).violations


def examine(objects: Objects, job: str, observed: Observed | None = None, unbroken: Unbroken = None) -> Verdict:
    """Decides what the inputs allow to decide; the rest is listed as undecided, never as passed."""
    compared = outcome(*unbroken) if isinstance(unbroken, tuple) else unbroken
    case = Case(objects, job, read_history(objects, job), observed or Observed(), compared)
    verdict = Verdict()
    for part in PARTS:
        name = f"{part.invariant} {part.name}"
        try:
            reason = part.why_not(case)
            texts = [] if reason else list(part.judge(case))
        except (KeyError, TypeError, IndexError) as error:
            # A document without what it must have: the checker cannot go on, and that is no pass.
            texts, reason = [f"what the log or the spec says cannot be read: {error!r}"], ""
        if reason:
            verdict.undecided[name] = reason
            continue
        verdict.decided.append(name)
        verdict.violations += [Violation(part.invariant, part.name, text) for text in texts]
    return verdict
