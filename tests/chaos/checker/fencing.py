"""I3 and I5, from the log alone: jobs end once; no effect of a lower epoch or attempt after a higher one."""

import re
from collections.abc import Iterator
from typing import Any

from tests.chaos.checker.history import HOUSEKEEPING, Event, read_history, repeated
from tests.chaos.checker.objects import Missing
from tests.chaos.checker.observed import Created
from tests.chaos.checker.verdict import Case, Part, always

OWNERLESS_TYPES = HOUSEKEEPING | {"cancel_requested", "pause_requested", "resume_requested"}
"""Types that any replica may write, without an epoch."""
OWNED = re.compile(r"/(?P<what>policy|checkpoints|tokens|batches|evals)/(?P<step>\d+)-(?P<token>\d+)(?=[-./]|$)")
"""Names under jobs/ that carry the epoch (batches, evals) or the attempt of who wrote them."""
CREATION = 0
"""Attempt of what came with the creation of the job: the copies that a fork begins with."""


def _accepted(case: Case) -> Iterator[str]:
    if not case.history.spec:
        yield "spec.json is missing or damaged: the job is not listed any more"


def _ends_or_runs(case: Case) -> Iterator[str]:
    history = case.history
    if history.end is None:
        if not case.observed.running and not history.paused:
            last = history.events[-1] if history.events else "nothing"
            yield f"the job has not ended; the last thing that happened is {last}"
        try:
            case.objects.get(f"active/{case.job}")
        except Missing:
            # It may have ended since the log was read.
            if read_history(case.objects, case.job).end is None:
                yield "the job has not ended and is not in the index of unfinished jobs"
        return
    for event in history.events:
        if event.revision > history.end.revision and event.type not in HOUSEKEEPING:
            yield f"{event} follows the terminal event {history.end.revision}"


def _not_created(case: Case) -> str:
    return "" if case.observed.created is not None else "no answers to CreateJob were recorded"


def _same_request(case: Case) -> Iterator[str]:
    first: dict[str, Created] = {}
    for answer in case.observed.created or ():
        if not answer.job:
            continue
        earlier = first.setdefault(answer.request_id, answer)
        if earlier.job != answer.job:
            yield f"request {answer.request_id!r} is job {earlier.job} and job {answer.job}"
        try:
            case.objects.get(f"jobs/{answer.job}/spec.json")
        except Missing:
            yield f"job {answer.job} was accepted and is not there"


def _epochs(case: Case) -> Iterator[str]:
    epoch, attempt, owner = 0, 0, ""
    for event in case.history.events:
        if event.epoch == 0 and event.type in OWNERLESS_TYPES:
            continue
        if event.type == "owner_taken":
            if event.epoch != epoch + 1:
                yield f"{event} begins epoch {event.epoch} after epoch {epoch}"
            epoch, owner = max(epoch, event.epoch), event.actor
        elif event.epoch != epoch:
            yield f"{event} is of epoch {event.epoch} while epoch {epoch} owns the job"
        elif event.actor != owner:
            yield f"{event} is by {event.actor}, epoch {epoch} belongs to {owner}"
        expected = attempt + 1 if event.type == "learner_opened" else attempt
        if event.attempt != expected:
            yield f"{event} is of attempt {event.attempt}, expected is {expected}"
        attempt = max(attempt, event.attempt)


def _names(case: Case) -> Iterator[str]:
    """What an event names was written under the epoch or attempt of that event."""
    for event in case.history.events:
        for name in _named(event) if event.type not in HOUSEKEEPING else ():
            found = OWNED.search(name)
            if found is None or not name.startswith(f"jobs/{case.job}/"):
                continue
            kind = "epoch" if found["what"] in ("batches", "evals") else "attempt"
            token = event.epoch if kind == "epoch" else event.attempt
            if int(found["token"]) not in (token, CREATION):
                yield f"{event} of {kind} {token} names {name}, written in {kind} {found['token']}"


def _named(event: Event) -> Iterator[str]:
    refs: list[Any] = [event.data, event.data.get("tokens"), event.data.get("policy"), event.data.get("model")]
    for ref in refs:
        if isinstance(ref, dict):
            yield str(ref.get("key", ""))
            yield str(ref.get("uri", "")).removeprefix("store:")


def _once(case: Case) -> Iterator[str]:
    history = case.history
    for nonce in repeated(event.nonce for event in history.events):
        yield f"the write with nonce {nonce} stands in the log twice"
    for kind in ("step_completed", "checkpoint"):
        for stage, step in repeated((event.data["stage"], event.data["step"]) for event in history.of(kind)):
            yield f"{kind} of {stage} step {step} happened twice"
    for kind in ("stage_completed", "stage_started"):
        for stage in repeated(event.data["stage"] for event in history.of(kind)):
            yield f"{kind} of {stage} happened twice"
    for kind in ("job_finished", "offset_measured"):
        if len(list(history.of(kind))) > 1:
            yield f"{kind} happened twice"


def _from_the_checkpoint(case: Case) -> Iterator[str]:
    """An attempt begins at the newest kept checkpoint of its stage, and no later than what is trained."""
    history = case.history
    kept: dict[str, dict[str, int]] = {}
    done: dict[str, int] = {}
    for event in history.of("checkpoint", "checkpoint_released", "step_completed", "learner_opened"):
        stage = event.data["stage"]
        start = history.first_version if stage == "ppo" else 0
        if event.type == "step_completed":
            done[stage] = event.data["step"]
        elif event.type == "checkpoint":
            kept.setdefault(stage, {})[event.data["key"]] = event.data["step"]
            if event.data["step"] > done.get(stage, start):
                yield f"{event} saves a step that is not done"
        elif event.type == "checkpoint_released":
            kept.setdefault(stage, {}).pop(event.data["key"], None)
        else:
            newest = max(kept.get(stage, {}).values(), default=start)
            if event.data["from_step"] != newest:
                yield f"{event} begins at step {event.data['from_step']}, saved is {newest}"


PARTS = [
    Part("I3", "listed", always, _accepted),
    Part("I3", "ends or runs", always, _ends_or_runs),
    Part("I3", "same request", _not_created, _same_request),
    Part("I5", "epochs and attempts", always, _epochs),
    Part("I5", "names", always, _names),
    Part("I5", "once", always, _once),
    Part("I5", "from the checkpoint", always, _from_the_checkpoint),
]
