"""The checker's own reading of a job's log, from what docs/events.md says. It judges nothing but the form."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property
from typing import Any

from tests.chaos.checker.objects import Missing, Objects

TERMINAL = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})
PROGRESS = frozenset(
    {
        "batch_sealed",
        "step_completed",
        "policy_published",
        "checkpoint",
        "evaluated",
        "offset_measured",
        "stage_completed",
        "job_finished",
    }
)
"""Events that bring a job on, or end it."""
HOUSEKEEPING = frozenset({"checkpoint_pinned", "checkpoint_released", "policies_released", "job_deleted"})
"""Care for data: the only types that may follow the terminal event."""


@dataclass(frozen=True)
class Event:
    """One event of the log, as its object has it."""

    revision: int
    type: str
    data: dict[str, Any]
    time: float
    """Seconds since 1970."""
    actor: str
    nonce: str
    epoch: int
    attempt: int

    def __str__(self) -> str:
        step = f" of step {self.data['step']}" if "step" in self.data else ""
        return f"event {self.revision} ({self.type}{step})"


@dataclass
class History:
    """A job's log and spec."""

    job: str
    events: list[Event] = field(default_factory=list)
    spec: dict[str, Any] = field(default_factory=dict)
    """The document of spec.json; empty when there is none that can be read."""
    damage: list[str] = field(default_factory=list)
    """What is missing from the log, or is no event."""
    not_finite: list[str] = field(default_factory=list)
    """Where the log or the spec says NaN or Infinity."""

    def of(self, *types: str) -> Iterator[Event]:
        """The events of these types in order."""
        return (event for event in self.events if event.type in types)

    def last(self, *types: str, before: int | None = None) -> Event | None:
        """The newest event of these types, below a revision if one is given."""
        found = (event for event in self.of(*types) if before is None or event.revision < before)
        return max(found, key=lambda event: event.revision, default=None)

    @cached_property
    def end(self) -> Event | None:
        """The first terminal event."""
        return next(self.of("job_finished"), None)

    @property
    def paused(self) -> bool:
        """Whether the job is paused, as somebody asked."""
        intent = self.last("pause_requested", "resume_requested", "cancel_requested")
        state = self.last("state_changed")
        asked = intent is not None and intent.type == "pause_requested"
        return asked and state is not None and state.data["state"] == "PAUSED"

    @cached_property
    def seals(self) -> dict[int, Event]:
        """PPO step to the event that sealed it first."""
        found: dict[int, Event] = {}
        for event in self.of("batch_sealed"):
            found.setdefault(event.data["step"], event)
        return found

    @property
    def ppo(self) -> dict[str, Any]:
        """The resolved ppo section."""
        section: dict[str, Any] = self.spec.get("spec", {}).get("ppo") or {}
        return section

    @property
    def pinned(self) -> dict[str, Any]:
        """What submission pinned by digest."""
        section: dict[str, Any] = self.spec.get("pinned", {})
        return section

    @cached_property
    def first_version(self) -> int:
        """v0: the policy version that the job starts from; a fork goes on where its parent was."""
        origin = self.spec.get("forked_from")
        return int(origin["step"]) if origin else 0


def read_history(objects: Objects, job: str) -> History:
    """The log and the spec as they are now. Raises nothing for what is damaged: it says so."""
    history = History(job)
    history.spec = _document(objects, f"jobs/{job}/spec.json", history)
    keys = [key for key in objects.list(f"jobs/{job}/events/") if key.rpartition("/")[2].isdigit()]
    expected = 1
    for key in keys:
        revision = int(key.rpartition("/")[2])
        for gap in range(expected, revision):
            history.damage.append(f"event {gap} is missing, {revision} is there")
        expected = revision + 1
        event = _event(_document(objects, key, history), key, history)
        if event is not None:
            history.events.append(event)
    return history


def parse_json(data: bytes, where: str, not_finite: list[str]) -> Any:
    """JSON whose numbers are finite; where they are not, `not_finite` is told."""

    def constant(name: str) -> float:
        not_finite.append(f"{where} says {name}")
        return float(name)

    return json.loads(data, parse_constant=constant)


def _document(objects: Objects, key: str, history: History) -> dict[str, Any]:
    try:
        document = parse_json(objects.get(key), key, history.not_finite)
    except Missing:
        history.damage.append(f"{key} is missing")
    except ValueError as error:
        history.damage.append(f"{key} is no JSON: {error}")
    else:
        if isinstance(document, dict):
            return document
        history.damage.append(f"{key} is no JSON object")
    return {}


def _event(document: dict[str, Any], key: str, history: History) -> Event | None:
    if not document:
        return None
    try:
        event = event_from(document)
    except (KeyError, TypeError, ValueError) as error:
        history.damage.append(f"{key} is no event: {error!r}")
        return None
    if event.revision != int(key.rpartition("/")[2]):
        history.damage.append(f"{key} says that it is revision {event.revision}")
        return None
    return event


def event_from(document: dict[str, Any]) -> Event:
    """An event of its JSON object. Raises KeyError, TypeError or ValueError when it is none."""
    return Event(
        revision=int(document["revision"]),
        type=str(document["type"]),
        data=dict(document["data"]),
        time=datetime.fromisoformat(document["time"]).timestamp(),
        actor=str(document["actor"]),
        nonce=str(document["nonce"]),
        epoch=int(document["epoch"]),
        attempt=int(document["attempt"]),
    )


def repeated(values: Iterable[Any]) -> list[Any]:
    """The values that occur more than once, each once, in the order of their second occurrence."""
    seen: set[Any] = set()
    again: dict[Any, None] = {}
    for value in values:
        if value in seen:
            again[value] = None
        seen.add(value)
    return list(again)
