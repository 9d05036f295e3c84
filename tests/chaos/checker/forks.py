"""I5 and I6 of forks: they go on where their source was, from a copy of their own."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.checker.history import read_history
from tests.chaos.checker.verdict import Case, Part


def _origin(case: Case) -> dict[str, Any]:
    found: dict[str, Any] = case.history.spec.get("forked_from") or {}
    return found


def _no_fork(case: Case) -> str:
    return "" if _origin(case) or case.history.last("forked") else "the job is no fork"


def _begins(case: Case) -> Iterator[str]:
    """`forked` says what spec.json says, once, and before any work; what was taken over is not done again."""
    history, origin = case.history, _origin(case)
    told = list(history.of("forked"))
    for event in told:
        if event.data != origin:
            yield f"{event} tells another origin than spec.json"
    if len(told) > 1:
        yield f"{told[1]} is the second of its kind"
    started = list(history.of("stage_started"))
    if started and (not told or told[0].revision > started[0].revision):
        yield f"{started[0]} came before the log said what it goes on from"
    for event in started:
        if event.data["stage"] != "ppo" and event.data["stage"] in origin.get("stage_results", {}):
            yield f"{event} does {event.data['stage']} again, which the fork has of its source"


def _own_copy(case: Case) -> Iterator[str]:
    """The checkpoint that a fork begins with lies with the fork, and is the one that its source saved."""
    origin = _origin(case)
    checkpoint = origin["checkpoint"]
    if not checkpoint["key"].startswith(f"jobs/{case.job}/"):
        yield f"the fork begins with {checkpoint['key']}, which is not its own"
    source = read_history(case.objects, origin["job"])
    saved = [
        event.data["sha256"]
        for event in source.of("checkpoint")
        if (event.data["stage"], event.data["step"]) == ("ppo", origin["step"])
    ]
    forked = source.spec.get("forked_from") or {}
    if forked.get("step") == origin["step"]:
        saved.append(forked["checkpoint"]["sha256"])
    if source.events and checkpoint["sha256"] not in saved:
        yield f"the fork begins with another checkpoint than job {origin['job']} saved at step {origin['step']}"


PARTS = [
    Part("I5", "fork begins", _no_fork, _begins),
    Part("I6", "fork's checkpoint", _no_fork, _own_copy),
]
