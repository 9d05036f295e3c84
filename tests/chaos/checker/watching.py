"""I8: a watcher gets every event once and in order, over any number of connections, and the terminal one last."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker.history import TERMINAL
from tests.chaos.checker.observed import Connection
from tests.chaos.checker.verdict import Case, Part


@dataclass
class _Watcher:
    """Where a watcher is in the log."""

    revision: int = 0
    saw_end: bool = False
    problems: list[str] = field(default_factory=list)


def _not_watched(case: Case) -> str:
    return "" if case.observed.watches is not None else "no watch was recorded"


def _watches(case: Case) -> Iterator[str]:
    for number, connections in enumerate(case.observed.watches or ()):
        watcher = _Watcher()
        for index, connection in enumerate(connections):
            _follow(case, watcher, connection, first=index == 0)
        if case.history.end is not None and not watcher.saw_end:
            watcher.problems.append("the terminal event was never delivered")
        yield from (f"watcher {number}: {problem}" for problem in watcher.problems)


def _follow(case: Case, watcher: _Watcher, connection: Connection, *, first: bool) -> None:
    if connection.after_revision:
        if first:
            watcher.revision = connection.after_revision
        elif connection.after_revision != watcher.revision:
            return  # The driver asked for something else: a watcher of its own.
    events = {event.revision: event for event in case.history.events}
    snapshot_due = connection.after_revision == 0
    for message in connection.messages:
        revision, kind = int(message.get("revision", 0)), _kind(message)
        if snapshot_due != (kind == "snapshot"):
            watcher.problems.append(f"a {kind} came at revision {revision}, a snapshot comes first, and only once")
        snapshot_due = False
        if kind == "event":
            if revision != watcher.revision + 1:
                watcher.problems.append(f"event {revision} came after revision {watcher.revision}")
            event = events.get(revision)
            if event is None or _content(message["event"]) != (event.type, event.data):
                watcher.problems.append(f"event {revision} was told otherwise than the log has it")
            watcher.saw_end |= event is not None and event.type == "job_finished"
        elif kind == "snapshot":
            if revision < watcher.revision:
                watcher.problems.append(f"the snapshot of revision {revision} came after revision {watcher.revision}")
            watcher.saw_end |= _state(message) in TERMINAL
        elif revision != watcher.revision:
            watcher.problems.append(f"a heartbeat of revision {revision} came after revision {watcher.revision}")
        watcher.revision = revision
    end = case.history.end
    watcher.saw_end |= end is not None and connection.after_revision >= end.revision
    if connection.ended and not watcher.saw_end:
        watcher.problems.append(f"the stream ended at revision {watcher.revision}, before the terminal event")


def _kind(message: dict[str, Any]) -> str:
    if message.get("event") is not None:
        return "event"
    return "heartbeat" if "heartbeat" in message else "snapshot"


def _state(message: dict[str, Any]) -> str:
    job = message.get("snapshot") or message.get("job") or {}
    return str(job.get("state", "")).removeprefix("JOB_STATE_")


def _content(event: dict[str, Any]) -> tuple[str, Any]:
    data = event.get("data_json", event.get("dataJson", event.get("data", {})))
    return str(event.get("type", "")), json.loads(data) if isinstance(data, str) else data


PARTS = [Part("I8", "watchers", _not_watched, _watches)]
