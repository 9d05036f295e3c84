"""The fold of a job's event log. It is pure: the same events always give the same view."""

from collections.abc import Iterable
from dataclasses import replace
from functools import singledispatch

from quatrain.errors import Corrupt
from quatrain.joblog.compact import MetricRows
from quatrain.joblog.events import Event
from quatrain.joblog.payloads import (
    PHASE,
    AttemptFailed,
    BatchSealed,
    CancelRequested,
    CheckpointCommitted,
    CheckpointPinned,
    CheckpointReleased,
    ConditionChanged,
    Evaluated,
    Forked,
    JobDeleted,
    JobFinished,
    LearnerOpened,
    Metrics,
    OffsetMeasured,
    OwnerTaken,
    PauseRequested,
    Payload,
    PoliciesReleased,
    PolicyPublished,
    ResumeRequested,
    StageCompleted,
    StageStarted,
    StateChanged,
    StepCompleted,
)
from quatrain.joblog.view import Checkpoint, Intents, JobView, ReleasedCheckpoint, Tombstone
from quatrain.refs import ModelRef
from quatrain.stages import POLICY_STAGE


def fold(job: str, events: Iterable[Event]) -> JobView:
    """Return the view of a job whose whole log is `events`. Raises Corrupt as `apply` does."""
    view = JobView(job)
    for event in events:
        apply(view, event)
    return view


def apply(view: JobView, event: Event) -> JobView:
    """Fold the next event into `view` (in place) and return it.

    Raises Corrupt when the event is not the next one, or of a type that this version does not know: a guess could
    decide things that the log did not.
    """
    if event.revision != view.revision + 1:
        raise Corrupt(
            f"job {view.job}: event {event.revision} follows event {view.revision}; one between them is missing"
        )
    if event.epoch:
        view.phase = ""
    _fold(event.payload, view, event)
    view.revision = event.revision
    view.update_time = event.time
    view.create_time = view.create_time or event.time
    return view


@singledispatch
def _fold(payload: Payload, view: JobView, event: Event) -> None:
    raise Corrupt(f"job {view.job}: event {event.revision} is a {event.type!r}, which this version does not know")


@_fold.register
def _owner_taken(payload: OwnerTaken, view: JobView, event: Event) -> None:
    view.lost = view.lost or bool(view.owner)
    view.epoch = event.epoch
    view.owner = payload.owner
    view.owners_without_progress += 1


@_fold.register
def _state_changed(payload: StateChanged, view: JobView, event: Event) -> None:
    view.state, view.reason = payload.state, payload.reason
    if view.state == "PAUSED":
        view.owner = ""
        view.owners_without_progress = 0
        _set_elapsed(view, payload.elapsed)
        if view.intents.pause is None:  # Resumed while the owner was leaving: the job waits for the next one.
            view.state = "QUEUED"


@_fold.register
def _forked(payload: Forked, view: JobView, event: Event) -> None:
    view.forked = payload
    view.stage_results.update(payload.stage_results)
    view.offset = payload.offset
    view.completed[POLICY_STAGE.name] = payload.step
    copied = Checkpoint(POLICY_STAGE.name, payload.step, payload.checkpoint, event.attempt, event.revision)
    view.checkpoints = [*view.checkpoints, copied]


@_fold.register
def _stage_started(payload: StageStarted, view: JobView, event: Event) -> None:
    view.stage = payload.stage
    view.total_steps = payload.total_steps
    view.step = view.completed.get(view.stage, 0)
    view.stage_attempt = 0
    _set_elapsed(view, payload.elapsed)
    view.stage_began = view.elapsed


@_fold.register
def _learner_opened(payload: LearnerOpened, view: JobView, event: Event) -> None:
    view.attempt = event.attempt
    if view.lost or not view.stage_attempt:
        view.stage_attempt += 1
    view.lost = False


@_fold.register
def _batch_sealed(payload: BatchSealed, view: JobView, event: Event) -> None:
    # The first seal of a step counts: a rollout is consumed if and only if it is in that batch.
    if payload.step not in view.sealed:
        view.sealed[payload.step] = payload
    view.owners_without_progress = 0


@_fold.register
def _step_completed(payload: StepCompleted, view: JobView, event: Event) -> None:
    view.stage, view.step = payload.stage, payload.step
    view.completed[payload.stage] = payload.step
    _set_elapsed(view, payload.elapsed)
    view.owners_without_progress = 0
    _merge_metrics(view, payload.stage, payload.step, payload.metrics, event)
    if payload.tokens is not None:
        view.tokens[payload.step] = payload.tokens
    if payload.policy is not None:
        _publish(view, payload.stage, payload.policy)


@_fold.register
def _policy_published(payload: PolicyPublished, view: JobView, event: Event) -> None:
    _publish(view, payload.stage, payload.model)


@_fold.register
def _checkpoint(payload: CheckpointCommitted, view: JobView, event: Event) -> None:
    view.checkpoints.append(Checkpoint(payload.stage, payload.step, payload.manifest, event.attempt, event.revision))
    view.failures = []


@_fold.register
def _checkpoint_pinned(payload: CheckpointPinned, view: JobView, event: Event) -> None:
    change = view.pinned.add if payload.pinned else view.pinned.discard
    change(payload.key)


@_fold.register
def _checkpoint_released(payload: CheckpointReleased, view: JobView, event: Event) -> None:
    # A new list, because another thread may be iterating over the old one.
    view.checkpoints = [each for each in view.checkpoints if each.key != payload.key]
    view.pinned.discard(payload.key)
    view.released[payload.key] = ReleasedCheckpoint(
        stage=payload.stage,
        step=payload.step,
        key=payload.key,
        reason=payload.reason,
        time=event.time,
        actor=event.actor,
        revision=event.revision,
    )


@_fold.register
def _policies_released(payload: PoliciesReleased, view: JobView, event: Event) -> None:
    released = set(payload.versions)
    view.policies = {version: model for version, model in view.policies.items() if version not in released}
    for version in released:
        view.released_policies.add(version)


@_fold.register
def _job_deleted(payload: JobDeleted, view: JobView, event: Event) -> None:
    view.deleted = Tombstone(event.time, event.actor, payload.reason)


@_fold.register
def _evaluated(payload: Evaluated, view: JobView, event: Event) -> None:
    view.evaluations[payload.step] = payload
    view.owners_without_progress = 0
    _merge_metrics(view, POLICY_STAGE.name, payload.step, payload.metrics, event)


@_fold.register
def _offset_measured(payload: OffsetMeasured, view: JobView, event: Event) -> None:
    view.offset = payload


@_fold.register
def _stage_completed(payload: StageCompleted, view: JobView, event: Event) -> None:
    view.stage_results[payload.stage] = payload
    view.owners_without_progress = 0
    view.failures = []


@_fold.register
def _condition(payload: ConditionChanged, view: JobView, event: Event) -> None:
    if payload.name == PHASE:
        view.phase = payload.message or ""
    elif payload.message is None:
        view.conditions.pop(payload.name, None)
    else:
        view.conditions[payload.name] = payload.message


@_fold.register
def _attempt_failed(payload: AttemptFailed, view: JobView, event: Event) -> None:
    view.failures = [*view.failures, payload]
    view.lost = True


@_fold.register
def _cancel_requested(payload: CancelRequested, view: JobView, event: Event) -> None:
    # An intent to end at once is not taken back by a later, milder one.
    now = payload.now or (view.intents.cancel is not None and view.intents.cancel.now)
    view.intents = replace(view.intents, cancel=CancelRequested(now=now, reason=payload.reason))


@_fold.register
def _pause_requested(payload: PauseRequested, view: JobView, event: Event) -> None:
    view.intents = replace(view.intents, pause=payload)
    if not view.owner:  # No owner has to stop first.
        view.state, view.reason = "PAUSED", payload.reason


@_fold.register
def _resume_requested(payload: ResumeRequested, view: JobView, event: Event) -> None:
    view.intents = replace(view.intents, pause=None)
    if view.state == "PAUSED":
        view.state, view.reason = "QUEUED", payload.reason


@_fold.register
def _job_finished(payload: JobFinished, view: JobView, event: Event) -> None:
    view.state, view.error = payload.state, payload.error
    view.reason = "" if payload.error is None else payload.error.message
    view.intents = Intents()


def _set_elapsed(view: JobView, elapsed: float | None) -> None:
    view.elapsed = view.elapsed if elapsed is None else elapsed


def _publish(view: JobView, stage: str, model: ModelRef) -> None:
    version = model.policy_version
    if stage == POLICY_STAGE.name and version is not None:
        # A version's digest is fixed by its first event; a replay never names it again.
        view.policies.setdefault(version, model)
        view.policy_version = max(view.policy_version, version)


def _merge_metrics(view: JobView, stage: str, step: int, metrics: Metrics, event: Event) -> None:
    view.metrics.setdefault(stage, MetricRows()).merge(step, event.attempt, metrics)
