"""Pins, manual releases and the deletion of jobs: each is an event, decided on the newest view; data go after it."""

from dataclasses import dataclass

from quatrain.errors import NotFound, WrongState
from quatrain.faults import fault_point
from quatrain.joblog import Event, JobView, jobs
from quatrain.joblog.payloads import CheckpointPinned, CheckpointReleased, JobDeleted
from quatrain.joblog.view import Checkpoint
from quatrain.orchestrator.api.messages import state_word
from quatrain.orchestrator.api.reading import JobReader
from quatrain.refs import ModelRef
from quatrain.stages import POLICY_STAGE
from quatrain.storage import ObjectStore

ON_REQUEST = "deleted on request"


@dataclass(frozen=True)
class Request:
    """A change of what a job keeps: which job, who asked and why."""

    job: str
    actor: str
    reason: str


async def pin(reader: JobReader, store: ObjectStore, request: Request, step: int, *, pinned: bool) -> None:
    """Append the pin, or its end, of the PPO checkpoint of `step`, unless it stands like that already.

    Raises NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        found = _checkpoint(view, step)
        if (found.key in view.pinned) == pinned:
            return None
        if not pinned:  # Checkpoints that only the pin has kept are deleted.
            store.put(jobs.cleanup_key(request.job, view.revision + 1), b"{}")
        change = CheckpointPinned(
            stage=found.stage, step=found.step, key=found.key, pinned=pinned, reason=request.reason
        )
        return Event(change, request.actor)

    await reader.append_decided(request.job, decide)


async def release(reader: JobReader, store: ObjectStore, request: Request, step: int) -> None:
    """Give the PPO checkpoint of `step` up.

    Raises WrongState when it is pinned or a running job may need it; NotFound, PermissionRefused, Unavailable.
    """

    job = request.job

    def decide(view: JobView) -> Event | None:
        if any((each.stage, each.step) == (POLICY_STAGE.name, step) for each in view.released.values()):
            return None
        found = _checkpoint(view, step)
        if found.key in view.pinned:
            command = f"quatrain checkpoint pin {job} --step {step} --off"
            raise WrongState(f"the checkpoint of step {step} is pinned: lift the pin first with `{command}`")
        if not view.finished and found == view.newest_checkpoint(POLICY_STAGE.name):
            raise WrongState(
                f"job {job!r} is {state_word(view)} and would start again from the checkpoint of step {step}, its "
                "newest one"
            )
        store.put(jobs.cleanup_key(job, view.revision + 1), b"{}")
        fault_point("delete.before_event")
        reason = request.reason or ON_REQUEST
        released = CheckpointReleased(stage=found.stage, step=found.step, key=found.key, reason=reason)
        return Event(released, request.actor)

    await reader.append_decided(job, decide)
    fault_point("delete.after_event")


async def delete_job(reader: JobReader, store: ObjectStore, request: Request) -> None:
    """Write the tombstone of a finished job.

    Raises WrongState while it runs; NotFound, PermissionRefused, Unavailable.
    """

    job = request.job

    def decide(view: JobView) -> Event | None:
        if view.deleted is not None:
            return None
        if not view.finished:
            raise WrongState(
                f"job {job!r} is {state_word(view)}; only a finished job can be deleted: "
                f"`quatrain job cancel {job}` ends it"
            )
        store.put(jobs.cleanup_key(job, view.revision + 1), b"{}")
        fault_point("delete.before_event")
        return Event(JobDeleted(reason=request.reason), request.actor)

    await reader.append_decided(job, decide, deleted_too=True)
    fault_point("delete.after_event")


def policy_of_step(view: JobView, step: int | None) -> ModelRef:
    """Return the published policy of a step (None: the newest). Raises NotFound saying what became of it."""
    wanted = view.policy_version if step is None else step
    if wanted in view.policies:
        return view.policies[wanted]
    if wanted in view.released_policies:
        raise NotFound(
            f"the policy of step {wanted} of job {view.job!r} was released and deleted; kept are those of steps "
            f"{_steps(list(view.policies))}. checkpoint.keep_last, keep_every, keep_best and `quatrain checkpoint pin` "
            "say what is kept"
        )
    raise NotFound(f"job {view.job!r} has no policy of step {wanted}; the newest is {view.policy_version}")


def _checkpoint(view: JobView, step: int) -> Checkpoint:
    """Return the PPO checkpoint of a step. Raises NotFound saying what became of it."""
    of_stage = [each for each in view.checkpoints if each.stage == POLICY_STAGE.name]
    for each in of_stage:
        if each.step == step:
            return each
    there = _steps([each.step for each in of_stage])
    for released in view.released.values():
        if (released.stage, released.step) == (POLICY_STAGE.name, step):
            raise NotFound(
                f"the checkpoint of step {step} of job {view.job!r} was released on {released.time} by "
                f"{released.actor} ({released.reason}); there are those of steps {there}"
            )
    raise NotFound(f"job {view.job!r} has no PPO checkpoint of step {step}; there are those of steps {there}")


def _steps(steps: list[int]) -> str:
    return ", ".join(str(step) for step in sorted(steps)) or "(none)"
