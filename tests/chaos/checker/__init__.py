"""Decides the invariants I1 to I12 of a job from the stores, the event log and what a driver saw from outside.

Independent of the code under test: nothing of Quatrain is imported here; the reader of objects, the fold of the log and
the rules are written anew from docs/events.md and docs/architecture.md. `python -m tests.chaos.checker --help` checks a
job by hand.
"""

from tests.chaos.checker.check import check, examine
from tests.chaos.checker.objects import FolderObjects, Missing, Objects, S3Objects
from tests.chaos.checker.observed import Cancel, Connection, Created, Fault, Observed, Outage, Start, redis_left
from tests.chaos.checker.outcome import Outcome, outcome
from tests.chaos.checker.verdict import INVARIANTS, Verdict, Violation

__all__ = [
    "INVARIANTS",
    "Cancel",
    "Connection",
    "Created",
    "Fault",
    "FolderObjects",
    "Missing",
    "Objects",
    "Observed",
    "Outage",
    "Outcome",
    "S3Objects",
    "Start",
    "Verdict",
    "Violation",
    "check",
    "examine",
    "outcome",
    "redis_left",
]
