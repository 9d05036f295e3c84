"""I7: what a job must end with whatever went wrong on its way, to compare with that of an unbroken run."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from tests.chaos.checker.history import History, read_history
from tests.chaos.checker.objects import Objects, sha256
from tests.chaos.checker.tables import Batch, canonical, read_batches

MEASURED = ("time/", "throughput/")
"""Metrics that are measured with a clock."""


@dataclass(frozen=True)
class Outcome:
    """Digests and numbers of a finished job. Keys of dictionaries are text, so that JSON keeps them."""

    state: str
    batches: dict[str, str] = field(default_factory=dict)
    """`step` to a digest of the rows without the job's id."""
    evaluations: dict[str, str] = field(default_factory=dict)
    losses: dict[str, dict[str, float | None]] = field(default_factory=dict)
    """`stage/step` to metrics."""
    weights: dict[str, str] = field(default_factory=dict)
    """Stage to `weights_sha256`."""

    def to_json(self) -> dict[str, Any]:
        """For a file beside a campaign."""
        return asdict(self)

    @staticmethod
    def from_json(document: dict[str, Any]) -> "Outcome":
        """Reverse of `to_json`."""
        return Outcome(**document)


def outcome(objects: Objects, job: str) -> Outcome:
    """The outcome of a job in a store."""
    return outcome_of(objects, read_history(objects, job))


def outcome_of(objects: Objects, history: History) -> Outcome:
    """The same for a history that was read already. Batches that retention has removed are left out."""
    return Outcome(
        state=history.end.data["state"] if history.end else "",
        batches={str(batch.step): _content(batch) for batch in read_batches(objects, history, "batch_sealed")},
        evaluations={str(batch.step): _content(batch) for batch in read_batches(objects, history, "evaluated")},
        losses={
            f"{event.data['stage']}/{event.data['step']}": _losses(event.data["metrics"])
            for event in history.of("step_completed")
        },
        weights={event.data["stage"]: event.data["weights_sha256"] for event in history.of("stage_completed")},
    )


def _content(batch: Batch) -> str:
    """Rollout ids are the only thing in a batch that the job's id goes into."""
    rows = [{name: value for name, value in row.items() if name != "rollout_id"} for row in batch.rows]
    return sha256(canonical(rows))


def _losses(metrics: dict[str, float | None]) -> dict[str, float | None]:
    return {name: value for name, value in sorted(metrics.items()) if not name.startswith(MEASURED)}


def differences(found: Outcome, unbroken: Outcome) -> Iterator[str]:
    """What differs, in words."""
    if found.state != unbroken.state:
        yield f"it ended {found.state or 'not at all'}, the unbroken run {unbroken.state or 'not at all'}"
    for name in ("batches", "evaluations", "weights"):
        mine, other = getattr(found, name), getattr(unbroken, name)
        for key in _apart(mine, other):
            yield f"{name} of {key} differ: {mine.get(key, 'none')}, unbroken {other.get(key, 'none')}"
    for key in _apart(found.losses, unbroken.losses):
        mine, other = found.losses.get(key), unbroken.losses.get(key)
        if mine is None or other is None:
            yield f"step {key} is only in {'the unbroken run' if mine is None else 'this one'}"
            continue
        name = next(iter(_apart(mine, other)))
        yield f"{name} of step {key} is {mine.get(name, 'missing')}, unbroken {other.get(name, 'missing')}"


def _apart(mine: dict[str, Any], other: dict[str, Any]) -> list[str]:
    return [key for key in sorted(mine.keys() | other.keys()) if mine.get(key, ...) != other.get(key, ...)]
