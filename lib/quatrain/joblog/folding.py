"""The fold of a job's event log. Pure: the same events give the same view, whoever folds them."""

from collections.abc import Callable, Iterable

from quatrain.errors import Corrupt
from quatrain.joblog.compact import MetricRows, Ref
from quatrain.joblog.events import Event
from quatrain.joblog.view import JobView


def fold(job: str, events: Iterable[Event]) -> JobView:
    """The view of a job whose whole log is `events`. Raises Corrupt as `apply` does."""
    view = JobView(job)
    for event in events:
        apply(view, event)
    return view


def apply(view: JobView, event: Event) -> JobView:
    """Folds the next event into `view` (in place) and returns it.

    Raises Corrupt when the event is not the next one, or is of a kind or shape that this version does not know:
    guessing on would decide things that the log did not.
    """
    if event.revision != view.revision + 1:
        raise Corrupt(
            f"job {view.job}: event {event.revision} follows event {view.revision}; one between them is missing"
        )
    handler = _HANDLERS.get(event.type)
    if handler is None:
        raise Corrupt(f"job {view.job}: event {event.revision} is a {event.type!r}, which this version does not know")
    try:
        handler(view, event)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise Corrupt(f"job {view.job}: {event.type} at revision {event.revision} lacks {error}") from error
    view.revision = event.revision
    view.update_time = event.time
    view.create_time = view.create_time or event.time
    return view


def check_event(event: Event) -> None:
    """Raises ValueError when `apply` could not fold the event: what is in a log is there for ever."""
    try:
        apply(JobView("check"), event.at(1))
    except Corrupt as error:
        raise ValueError(f"refused to append {event.type!r}: {error.message}") from error


def _owner_taken(view: JobView, event: Event) -> None:
    view.epoch = event.epoch
    view.owner = event.data["owner"]
    view.takeovers += 1
    view.owner_address = event.data.get("address", "")


def _state_changed(view: JobView, event: Event) -> None:
    view.state = event.data["state"]
    view.reason = event.data.get("reason") or ""
    if view.state == "PAUSED":
        view.owner = view.owner_address = ""
        view.takeovers = 0
        view.elapsed = event.data.get("elapsed", view.elapsed)
        if "pause" not in view.intents:  # Resumed while the owner was going: the job waits for the next one.
            view.state = "QUEUED"


def _forked(view: JobView, event: Event) -> None:
    view.forked = event.data
    view.stage_results.update(event.data["stage_results"])
    view.offset = event.data["offset"]
    view.completed["ppo"] = event.data["step"]
    checkpoint = {"stage": "ppo", "step": event.data["step"], **event.data["checkpoint"]}
    view.checkpoints = [*view.checkpoints, {**checkpoint, "attempt": event.attempt, "revision": event.revision}]


def _stage_started(view: JobView, event: Event) -> None:
    view.stage = event.data["stage"]
    view.total_steps = event.data.get("total_steps") or 0
    view.total_rows = event.data.get("total_rows") or 0
    view.step = view.completed.get(view.stage, 0)
    view.elapsed = event.data.get("elapsed", view.elapsed)
    view.stage_began = view.elapsed


def _learner_opened(view: JobView, event: Event) -> None:
    view.attempt = event.attempt
    view.learner = event.data


def _batch_sealed(view: JobView, event: Event) -> None:
    # The first seal of a step is the one: a rollout is consumed if and only if it stands there.
    if event.data["step"] not in view.sealed:
        view.sealed[event.data["step"]] = event.data
    view.takeovers = 0


def _step_completed(view: JobView, event: Event) -> None:
    stage, step = event.data["stage"], event.data["step"]
    view.stage, view.step = stage, step
    view.completed[stage] = step
    view.elapsed = event.data.get("elapsed", view.elapsed)
    view.takeovers = 0
    _merge_metrics(view, stage, event)
    if event.data.get("tokens"):
        view.tokens[step] = event.data["tokens"]
    if event.data.get("policy"):
        _publish(view, stage, event.data["policy"])


def _policy_published(view: JobView, event: Event) -> None:
    _publish(view, event.data["stage"], event.data["model"])


def _checkpoint(view: JobView, event: Event) -> None:
    view.checkpoints.append({**event.data, "attempt": event.attempt, "revision": event.revision})
    view.failures = []


def _checkpoint_pinned(view: JobView, event: Event) -> None:
    change = view.pinned.add if event.data["pinned"] else view.pinned.discard
    change(event.data["key"])


def _checkpoint_released(view: JobView, event: Event) -> None:
    key = event.data["key"]
    # A new list: who walks over the old one in another thread is not disturbed.
    view.checkpoints = [ref for ref in view.checkpoints if ref["key"] != key]
    view.pinned.discard(key)
    view.released[key] = {**event.data, "time": event.time, "actor": event.actor, "revision": event.revision}


def _policies_released(view: JobView, event: Event) -> None:
    released = set(event.data["versions"])
    view.policies = {version: ref for version, ref in view.policies.items() if version not in released}
    for version in released:
        view.released_policies.add(version)


def _job_deleted(view: JobView, event: Event) -> None:
    view.deleted = {"time": event.time, "actor": event.actor, "reason": event.data.get("reason") or ""}


def _evaluated(view: JobView, event: Event) -> None:
    view.evaluations[event.data["step"]] = event.data
    view.takeovers = 0
    _merge_metrics(view, "ppo", event)


def _offset_measured(view: JobView, event: Event) -> None:
    view.offset = event.data


def _stage_completed(view: JobView, event: Event) -> None:
    view.stage_results[event.data["stage"]] = event.data
    view.takeovers = 0
    view.failures = []


def _condition(view: JobView, event: Event) -> None:
    if event.data["message"] is None:
        view.conditions.pop(event.data["name"], None)
    else:
        view.conditions[event.data["name"]] = event.data["message"]


def _attempt_failed(view: JobView, event: Event) -> None:
    view.failures = [*view.failures, {**event.data, "attempt": event.attempt, "revision": event.revision}]


def _cancel_requested(view: JobView, event: Event) -> None:
    # A wish to end at once is not taken back by a later, milder one.
    now = bool(event.data.get("now")) or bool(view.intents.get("cancel", {}).get("now"))
    view.intents["cancel"] = {**event.data, "now": now}


def _pause_requested(view: JobView, event: Event) -> None:
    view.intents["pause"] = event.data
    if not view.owner:  # Nobody has anything to put away.
        view.state = "PAUSED"
        view.reason = event.data.get("reason") or ""


def _resume_requested(view: JobView, event: Event) -> None:
    view.intents.pop("pause", None)
    if view.state == "PAUSED":
        view.state = "QUEUED"
        view.reason = event.data.get("reason") or ""


def _job_finished(view: JobView, event: Event) -> None:
    view.state = event.data["state"]
    view.error = event.data.get("error")
    view.reason = (view.error or {}).get("message") or ""
    view.intents = {}


def _publish(view: JobView, stage: str, model: Ref) -> None:
    view.published[stage] = model
    version = model.get("policy_version")
    if stage == "ppo" and version is not None:
        # A version's digest is fixed by its first event; a replay never names it again.
        view.policies.setdefault(version, model)
        view.policy_version = max(view.policy_version, version)


def _merge_metrics(view: JobView, stage: str, event: Event) -> None:
    view.metrics.setdefault(stage, MetricRows()).merge(event.data["step"], event.attempt, event.data["metrics"])


_HANDLERS: dict[str, Callable[[JobView, Event], None]] = {
    "owner_taken": _owner_taken,
    "state_changed": _state_changed,
    "forked": _forked,
    "stage_started": _stage_started,
    "learner_opened": _learner_opened,
    "batch_sealed": _batch_sealed,
    "step_completed": _step_completed,
    "policy_published": _policy_published,
    "checkpoint": _checkpoint,
    "evaluated": _evaluated,
    "offset_measured": _offset_measured,
    "stage_completed": _stage_completed,
    "condition": _condition,
    "attempt_failed": _attempt_failed,
    "cancel_requested": _cancel_requested,
    "pause_requested": _pause_requested,
    "resume_requested": _resume_requested,
    "job_finished": _job_finished,
    "checkpoint_pinned": _checkpoint_pinned,
    "checkpoint_released": _checkpoint_released,
    "policies_released": _policies_released,
    "job_deleted": _job_deleted,
}
