"""I9, I10 and I11: what is left in Redis, how recovery went, how long a cancellation took."""

from collections.abc import Iterator

from tests.chaos.checker.history import HOUSEKEEPING, PROGRESS, Event, History
from tests.chaos.checker.verdict import Case, Part, always

MAX_TAKEOVERS = 7
"""Owners without progress: past 20 the job has to fail."""
STORM_SECONDS = 10.0
STORM_ATTEMPTS = 12
"""Attempts without progress within STORM_SECONDS: waits of 0.25 s that double allow for half of it."""
STORM_STARTS = 6
"""Starts of one process within STORM_SECONDS."""
UNAVAILABLE = "unavailable"
"""Name of the condition that says that something is away."""
WAITING_SECONDS = 5.0
"""A job may work on for so long after a store is gone, and say so as late."""
TOLD_SECONDS = 30.0
"""After a store is back, within which the log says that it was away."""
STEPS_AFTER_INTENT = 1
"""The step that runs may end."""
CANCEL_SECONDS = 120.0
"""From the request to the terminal event, by the log. A driver that knows its steps gives a closer bound."""
SLACK_SECONDS = 0.05
"""Times of events are rounded and taken by different processes."""


def _redis_unseen(case: Case) -> str:
    return "" if case.observed.redis_left is not None else "Redis was not looked at after the job"


def _redis_left(case: Case) -> Iterator[str]:
    for left in case.observed.redis_left or ():
        yield f"Redis still holds {left}"


def _index_unseen(case: Case) -> str:
    return "" if case.observed.index_left is not None else "the index was not looked at after the clean-up"


def _index_left(case: Case) -> Iterator[str]:
    if case.history.end is not None and case.observed.index_left:
        yield f"active/{case.job} is still there"


def _memory_unseen(case: Case) -> str:
    return "" if case.observed.redis_memory else "the memory of Redis was not sampled"


def _memory(case: Case) -> Iterator[str]:
    samples = list(case.observed.redis_memory or ())
    growth = max(samples) - samples[0]
    if growth > case.observed.redis_memory_growth:
        yield f"Redis grew by {growth} bytes, at most {case.observed.redis_memory_growth} are allowed"


def _no_clock(case: Case) -> str:
    return "clocks were set: times of events mean nothing" if case.observed.clock_jumped else ""


def _retries(case: Case) -> Iterator[str]:
    """The budget starts again at each checkpoint and each completed stage; past it the job has to fail."""
    history = case.history
    budget = int(history.spec["spec"]["limits"]["retries"])
    failures = 0
    for event in history.of("attempt_failed", "checkpoint", "stage_completed", "learner_opened"):
        if event.type == "attempt_failed":
            failures += 1
        elif event.type == "learner_opened":
            if failures > budget:
                yield f"{event} comes after {failures} failures, limits.retries is {budget}"
        else:
            failures = 0


def _takeovers(case: Case) -> Iterator[str]:
    owners = 0
    for event in case.history.events:
        if event.type == "owner_taken":
            owners += 1
            if owners > MAX_TAKEOVERS:
                yield f"{event}: {owners} owners in a row brought nothing on"
        elif event.type in PROGRESS:
            owners = 0


def _backoff(case: Case) -> Iterator[str]:
    """After failure n the next attempt waits 0.25 s times 2 to the n-1, up to 8 s, as long as the owner is the same."""
    failed: Event | None = None
    failures = 0
    for event in case.history.events:
        if event.type == "attempt_failed":
            failed, failures = event, failures + 1
        elif event.type in ("checkpoint", "stage_completed"):
            failures = 0
        elif event.type == "learner_opened" and failed is not None:
            wait = min(0.25 * 2.0 ** (failures - 1), 8.0)
            if event.epoch == failed.epoch and event.time - failed.time < wait - SLACK_SECONDS:
                yield f"{event} came {event.time - failed.time:.3f} s after failure {failures}, due are {wait:g} s"
            failed = None


def _storm(case: Case) -> Iterator[str]:
    opened: list[float] = []
    for event in case.history.events:
        if event.type in PROGRESS:
            opened = []
        elif event.type == "learner_opened":
            opened = [time for time in opened if event.time - time < STORM_SECONDS] + [event.time]
            if len(opened) > STORM_ATTEMPTS:
                yield f"{event}: {len(opened)} attempts within {STORM_SECONDS:g} s without progress"


def _no_faults(case: Case) -> str:
    return _no_clock(case) or ("" if case.observed.faults is not None else "no faults were recorded")


def _recovery(case: Case) -> Iterator[str]:
    """By the log's times, which have to be of the driver's clock."""
    history = case.history
    for fault in case.observed.faults or ():
        if history.end is not None and history.end.time <= fault.over:
            continue
        later = (event.time for event in history.events if event.type in PROGRESS and event.time > fault.over)
        went_on = next(later, None)
        if went_on is None or went_on - fault.over > fault.budget:
            took = "the job never went on" if went_on is None else f"{went_on - fault.over:.1f} s"
            yield f"{fault.what}: {took}, the budget is {fault.budget:g} s"


def _no_outages(case: Case) -> str:
    return _no_clock(case) or ("" if case.observed.outages else "nothing was away for long")


def _says_so(case: Case) -> Iterator[str]:
    """A job that stands still while a store is away says so by a condition, and takes it back."""
    for outage in case.observed.outages or ():
        events = case.history.events
        progress = [event.time for event in events if event.type in PROGRESS]
        before_end = outage.over - WAITING_SECONDS
        if case.history.end is not None and case.history.end.time < before_end:
            continue
        until = outage.over + TOLD_SECONDS if outage.silent else outage.over
        if any(outage.began + WAITING_SECONDS < time < before_end for time in progress):
            continue  # It had enough to do without the store.
        told = [
            event
            for event in case.history.of("condition")
            if event.data["name"] == UNAVAILABLE and event.data["message"] and outage.began < event.time <= until
        ]
        if not told:
            yield f"{outage.what} was away for {outage.over - outage.began:.0f} s, and the job did not say so"
        elif not any(
            event.data["name"] == UNAVAILABLE and not event.data["message"] and event.revision > told[0].revision
            for event in case.history.of("condition")
        ):
            yield f"{told[0]} still stands, though {outage.what} is back"


def _no_starts(case: Case) -> str:
    return "" if case.observed.starts is not None else "starts of processes were not recorded"


def _starts(case: Case) -> Iterator[str]:
    times: dict[str, list[float]] = {}
    for start in sorted(case.observed.starts or (), key=lambda start: start.time):
        times.setdefault(start.process, []).append(start.time)
    for process, starts in times.items():
        most = max(sum(0 <= time - first < STORM_SECONDS for time in starts) for first in starts)
        if most > STORM_STARTS:
            yield f"{process} was started {most} times within {STORM_SECONDS:g} s"


def _intent(history: History) -> Event | None:
    return next(history.of("cancel_requested"), None)


def _not_cancelled(case: Case) -> str:
    return "" if _intent(case.history) is not None else "nobody asked for the end"


def _cancel_steps(case: Case) -> Iterator[str]:
    intent, history = _intent(case.history), case.history
    assert intent is not None, "see _not_cancelled"
    if history.end is not None and history.end.revision < intent.revision:
        return
    steps = [event for event in history.of("step_completed") if event.revision > intent.revision]
    if len(steps) > STEPS_AFTER_INTENT:
        yield f"{len(steps)} steps were completed after {intent}"
    if history.end is None and not case.observed.running:
        yield f"the job has not ended after {intent}"


def _no_cancel_time(case: Case) -> str:
    return _not_cancelled(case) or _no_clock(case)


def _cancel_time(case: Case) -> Iterator[str]:
    intent, end = _intent(case.history), case.history.end
    if intent is not None and end is not None and end.time - intent.time > CANCEL_SECONDS:
        yield f"the end came {end.time - intent.time:.1f} s after {intent}, the bound is {CANCEL_SECONDS:g} s"


def _not_timed(case: Case) -> str:
    return "" if case.observed.cancel is not None else "no cancellation was timed"


def _cancel_seen(case: Case) -> Iterator[str]:
    cancel = case.observed.cancel
    assert cancel is not None, "see _not_timed"
    if cancel.finished is None or cancel.finished - cancel.requested > cancel.bound:
        took = "never" if cancel.finished is None else f"after {cancel.finished - cancel.requested:.1f} s"
        yield f"the end was seen {took}, the bound is {cancel.bound:g} s"


def _not_paused(case: Case) -> str:
    return "" if case.history.last("pause_requested") is not None else "nobody asked for a pause"


def _pause(case: Case) -> Iterator[str]:
    """Once a pause is asked for, the running step may end; from PAUSED on until somebody resumes, nothing happens."""
    intent: Event | None = None
    steps, paused = 0, False
    for event in case.history.events:
        if event.type == "pause_requested":
            intent, steps = intent or event, 0
        elif event.type in ("resume_requested", "cancel_requested", "job_finished"):
            intent, paused = None, False
        elif intent is not None and event.type not in HOUSEKEEPING:
            if paused:
                yield f"{event} happened while the job was paused"
            if event.type == "step_completed":
                steps += 1
                if steps > STEPS_AFTER_INTENT:
                    yield f"{event} is step {steps} after {intent}"
            paused |= event.type == "state_changed" and event.data["state"] == "PAUSED"


PARTS = [
    Part("I9", "Redis after the job", _redis_unseen, _redis_left),
    Part("I9", "index after the job", _index_unseen, _index_left),
    Part("I9", "memory of Redis", _memory_unseen, _memory),
    Part("I10", "retries", always, _retries),
    Part("I10", "takeovers", always, _takeovers),
    Part("I10", "back-off", _no_clock, _backoff),
    Part("I10", "attempts", _no_clock, _storm),
    Part("I10", "recovery time", _no_faults, _recovery),
    Part("I10", "says so", _no_outages, _says_so),
    Part("I10", "starts", _no_starts, _starts),
    Part("I11", "steps", _not_cancelled, _cancel_steps),
    Part("I11", "time in the log", _no_cancel_time, _cancel_time),
    Part("I11", "time seen", _not_timed, _cancel_seen),
    Part("I11", "pause", _not_paused, _pause),
]
