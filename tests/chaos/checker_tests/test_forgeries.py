"""Every forgery of a good history is found, and by the invariant that it breaks."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from tests.chaos.checker import Cancel, Connection, Created, Fault, Outage, Start
from tests.chaos.checker.check import PARTS
from tests.chaos.checker_tests import forged_data, forged_forks, forged_logs
from tests.chaos.checker_tests.histories import Stories, Story

FORGERIES = forged_data.FORGERIES | forged_logs.FORGERIES | forged_forks.FORGERIES
END = 1_000_000_000_000.0
"""Long after every job."""


def _messages(story: Story) -> list[dict[str, Any]]:
    """What an undisturbed watcher got."""
    assert story.observed.watches is not None
    return list(story.observed.watches[1][0].messages)


def _watch(messages: list[dict[str, Any]], *, ended: bool = True) -> dict[str, Any]:
    return {"watches": [[Connection(0, messages, ended)]]}


def _told_otherwise(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [*messages[:3], messages[3] | {"event": messages[3]["event"] | {"type": "condition"}}, *messages[4:]]


def _resumed_too_far(messages: list[dict[str, Any]]) -> dict[str, Any]:
    first = Connection(0, messages[:4], ended=False)
    return {"watches": [[first, Connection(int(messages[3]["revision"]), messages[5:], ended=True)]]}


SIGHTS: dict[str, tuple[str, Any]] = {
    "one request became two jobs": (
        "I3 same request",
        lambda story: {"created": [Created("one", story.job), Created("one", "another")]},
    ),
    "an accepted job was never there": ("I3 same request", lambda _: {"created": [Created("one", "another")]}),
    "the terminal event never came": ("I8 watchers", lambda story: _watch(_messages(story)[:-1], ended=False)),
    "the stream ended before the terminal event": ("I8 watchers", lambda story: _watch(_messages(story)[:5])),
    "an event was left out": ("I8 watchers", lambda story: _watch(_messages(story)[:4] + _messages(story)[5:])),
    "an event came twice": ("I8 watchers", lambda story: _watch(_messages(story)[:4] + _messages(story)[3:])),
    "two events changed places": (
        "I8 watchers",
        lambda story: _watch([*_messages(story)[:3], *_messages(story)[4:2:-1], *_messages(story)[5:]]),
    ),
    "an event was told otherwise": ("I8 watchers", lambda story: _watch(_told_otherwise(_messages(story)))),
    "the first message was no snapshot": ("I8 watchers", lambda story: _watch(_messages(story)[1:])),
    "a resumed watch began too late": ("I8 watchers", lambda story: _resumed_too_far(_messages(story))),
    "results were left in Redis": (
        "I9 Redis after the job",
        lambda story: {"redis_left": [f"quatrain:rollouts:{story.job}"]},
    ),
    "the job was left in the index": ("I9 index after the job", lambda _: {"index_left": True}),
    "Redis grew without bound": ("I9 memory of Redis", lambda _: {"redis_memory": [2**20, 2**30]}),
    "the job stood still after a fault": ("I10 recovery time", lambda _: {"faults": [Fault("store away", 0.0, 5.0)]}),
    "an uploaded file is not there": ("I6 uploads", lambda _: {"uploaded": ["0" * 64]}),
    "a model's name leads nowhere": ("I6 uploads", lambda _: {"named": {"mine": "0" * 64}}),
    "the job did not say what it waited for": (
        "I10 says so",
        lambda _: {"outages": [Outage("Redis", 0.0, 1000.0, silent=False)]},
    ),
    "a process was started over and over": (
        "I10 starts",
        lambda _: {"starts": [Start("learner", END + number) for number in range(9)]},
    ),
}


@pytest.mark.parametrize("name", FORGERIES)
def test_a_forgery_is_found_by_the_right_invariant(stories: Stories, tmp_path: Path, name: str) -> None:
    forged = FORGERIES[name]
    copy = stories[forged.story].copy(tmp_path)
    copy.observed = replace(copy.observed, watches=None)  # The watchers saw the history as it was.
    forged.forge(copy)
    verdict = copy.examine(stories[forged.unbroken] if forged.unbroken else None)
    found = {f"{violation.invariant} {violation.part}" for violation in verdict.violations}
    assert forged.found_by in found, [str(violation) for violation in verdict.violations]
    assert verdict.broken <= {forged.found_by.partition(" ")[0], *forged.also}, [str(v) for v in verdict.violations]


@pytest.mark.parametrize("sight", SIGHTS)
def test_what_was_seen_from_outside_is_judged(stories: Stories, sight: str) -> None:
    found_by, observed = SIGHTS[sight]
    story = stories["plain"]
    verdict = story.examine(**observed(story))
    assert {f"{violation.invariant} {violation.part}" for violation in verdict.violations} == {found_by}


@pytest.mark.parametrize("finished", [None, 200.0])
def test_a_cancellation_that_takes_too_long_is_found(stories: Stories, finished: float | None) -> None:
    verdict = stories["cancelled"].examine(cancel=Cancel(100.0, finished, bound=30.0))
    assert {f"{violation.invariant} {violation.part}" for violation in verdict.violations} == {"I11 time seen"}


def test_a_condition_that_is_not_taken_back_is_found(stories: Stories, tmp_path: Path) -> None:
    copy = stories["plain"].copy(tmp_path)
    first = copy.events("state_changed")[0]
    outage = Outage("Redis", first.time - 60.0, first.time - 1.0, silent=False)
    told = datetime.fromtimestamp(first.time - 30.0, UTC).isoformat()
    copy.insert(first.revision, first, type_="condition", name="unavailable", message="Redis is away", time_=told)
    seen: dict[str, Any] = {"watches": None, "outages": [outage]}
    assert [violation.part for violation in copy.examine(**seen).violations] == ["says so"]
    copy.insert(first.revision + 1, first, type_="condition", name="unavailable", message=None)
    assert copy.examine(**seen).violations == []


def test_data_of_a_job_that_waits_to_be_deleted_are_found(stories: Stories) -> None:
    verdict = stories["released"].examine(cleanup_left=True)
    assert [violation.part for violation in verdict.violations] == ["given up is gone"]


def test_every_part_is_proven_to_find_something() -> None:
    proven = {forged.found_by for forged in FORGERIES.values()} | {found_by for found_by, _ in SIGHTS.values()}
    assert {f"{part.invariant} {part.name}" for part in PARTS} == proven | {"I11 time seen"}
