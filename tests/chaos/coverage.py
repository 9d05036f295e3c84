"""What every campaign must have run, however the seeds fall: each pair of process and point, each link, and so on.

A cell is a kind of run with the number of runs that it needs. `missing` are the cases that a results file lacks.
"""

import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.chaos.cases import (
    LAST_REVISION,
    LINK_FAULTS,
    LINKS,
    ONLY_IN,
    PAIRS,
    REDIS_FAULTS,
    STORE_FAULTS,
    Case,
    at_point,
    at_revision,
    on_link,
)

ENOUGH = 5
STOPS = {"orchestrator": 1}
"""Stops at a named point; of other kinds of process ENOUGH."""
IN_FORKS = ("submit.before_active", "submit.after_active", "submit.after_spec")
IN_DELETIONS = ("retention.between_deletes", "retention.before_done")
WITH_LARGE_RESULTS = (
    ("rollout", "rollout.after_lease"),
    ("rollout", "rollout.before_complete"),
    ("rollout", "rollout.after_complete"),
    ("orchestrator", "owner.after_enqueue"),
    ("orchestrator", "owner.after_collect"),
    ("orchestrator", "owner.after_seal"),
    ("orchestrator", "owner.after_step"),
    ("orchestrator", "owner.after_evaluated"),
    ("orchestrator", "owner.after_finish"),
)
SHORTER = {"full": "ppo", "full-stale": "stale"}
Row = Mapping[str, Any]


@dataclass(frozen=True)
class Cell:
    """Runs that have these fields, and how to draw one."""

    fields: tuple[tuple[str, str], ...]
    wanted: int
    make: Callable[[random.Random], Case]

    def has(self, row: Row) -> bool:
        """Whether a line of the results is one of these runs."""
        return all(row[name] == value for name, value in self.fields)


def cells() -> Iterator[Cell]:
    """All of them."""
    for kind, point in PAIRS:
        yield _point("A", "kill", kind, point, ENOUGH)
    for kind, point in PAIRS:
        yield _point("B", "stop", kind, point, STOPS.get(kind, ENOUGH))
    for link in LINKS:
        for what in LINK_FAULTS:
            fields = (("fault", "C"), ("what", what), ("process", link))
            yield Cell(fields, ENOUGH, lambda draw, what=what, link=link: on_link(what, link, draw))  # type: ignore[misc]
    for fault, kinds, process, flavour in (("D", REDIS_FAULTS, "redis", "fake"), ("E", STORE_FAULTS, "store", "s3")):
        for what in kinds:
            yield _revision(fault, what, process, flavour, ENOUGH)
    for point in IN_FORKS:
        yield _point("A", "kill", "orchestrator", point, ENOUGH, variant="fork")
    for point in IN_DELETIONS:
        for variant in ("delete", "release"):
            yield _point("A", "kill", "orchestrator", point, ENOUGH, variant=variant)
    for kind, point in WITH_LARGE_RESULTS:
        yield _point("A", "kill", kind, point, ENOUGH, flavour="large")
    for what in REDIS_FAULTS:
        yield _revision("D", what, "redis", "large", ENOUGH)


def missing(rows: Sequence[Row]) -> Iterator[Case]:
    """Cases that bring every cell to its number, round by round."""
    short = [(cell, [row for row in rows if cell.has(row)]) for cell in cells()]
    lacks = {cell: cell.wanted - sum(row["result"] != "unreached" for row in found) for cell, found in short}
    for turn in range(max(lacks.values(), default=0)):
        for cell, found in short:
            if turn < lacks[cell]:
                yield _short(cell.make(random.Random(f"{cell.fields} {len(found) + turn}")))


def _short(case: Case) -> Case:
    """With PPO alone, where that does: what all three stages make of faults is for the seeds to say."""
    if case.variant not in SHORTER or case.point in ONLY_IN:
        return case
    variant = SHORTER[case.variant]
    return replace(case, variant=variant, at=min(case.at, LAST_REVISION[variant]))


def _point(fault: str, what: str, kind: str, point: str, wanted: int, **where: Any) -> Cell:
    fields = {"fault": fault, "what": what, "process": kind, "point": point, **where}
    return Cell(tuple(fields.items()), wanted, lambda draw: replace(at_point(fault, what, kind, point, draw), **where))


def _revision(fault: str, what: str, process: str, flavour: str, wanted: int) -> Cell:
    fields = {"fault": fault, "what": what, "process": process, "flavour": flavour}
    return Cell(tuple(fields.items()), wanted, lambda draw: at_revision(fault, what, process, draw, flavour))
