"""Pins, manual releases and the deletion of jobs: each is an event, decided on the newest view; data go after it."""

from quatrain.errors import NotFound, WrongState
from quatrain.faults import fault_point
from quatrain.joblog import Event, JobView, jobs
from quatrain.joblog.compact import Ref
from quatrain.orchestrator.api.reading import JobReader
from quatrain.refs import ModelRef
from quatrain.storage import ObjectStore

ON_REQUEST = "deleted on request"


async def pin(reader: JobReader, store: ObjectStore, job: str, step: int, event: Event) -> None:
    """Appends the pin, or its end, of the PPO checkpoint of `step`, unless it stands like that already.

    `event` has `pinned` and `reason` in its data. Raises NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        ref = _checkpoint(view, step)
        if (ref["key"] in view.pinned) == event.data["pinned"]:
            return None
        if not event.data["pinned"]:  # What the pin alone has kept goes.
            store.put(jobs.cleanup_key(job, view.revision + 1), b"{}")
        return _about(ref, event)

    await reader.append_decided(job, decide)


async def release(reader: JobReader, store: ObjectStore, job: str, step: int, event: Event) -> None:
    """Gives the PPO checkpoint of `step` up; `event` has `reason` in its data.

    Raises WrongState when it is pinned or a running job may need it; NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        if any((ref["stage"], ref["step"]) == ("ppo", step) for ref in view.released.values()):
            return None
        ref = _checkpoint(view, step)
        if ref["key"] in view.pinned:
            command = f"quatrain checkpoint pin {job} --step {step} --off"
            raise WrongState(f"the checkpoint of step {step} is pinned: lift the pin first with `{command}`")
        if not view.finished and ref == view.newest_checkpoint("ppo"):
            raise WrongState(
                f"job {job!r} is {view.state} and would start again from the checkpoint of step {step}, its newest one"
            )
        store.put(jobs.cleanup_key(job, view.revision + 1), b"{}")
        fault_point("delete.before_event")
        return _about(ref, event)

    await reader.append_decided(job, decide)
    fault_point("delete.after_event")


async def delete_job(reader: JobReader, store: ObjectStore, job: str, event: Event) -> None:
    """Writes the tombstone of a finished job.

    Raises WrongState while it runs; NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        if view.deleted is not None:
            return None
        if not view.finished:
            raise WrongState(
                f"job {job!r} is {view.state}; only a finished job can be deleted: `quatrain job cancel {job}` ends it"
            )
        store.put(jobs.cleanup_key(job, view.revision + 1), b"{}")
        fault_point("delete.before_event")
        return Event(event.type, event.data, event.actor)

    await reader.append_decided(job, decide, deleted_too=True)
    fault_point("delete.after_event")


def policy_of_step(view: JobView, step: int | None) -> ModelRef:
    """The published policy of a step (None: the newest). Raises NotFound saying what became of it."""
    wanted = view.policy_version if step is None else step
    if wanted in view.policies:
        return ModelRef.from_json(view.policies[wanted])
    if wanted in view.released_policies:
        raise NotFound(
            f"the policy of step {wanted} of job {view.job!r} was released and deleted; kept are those of steps "
            f"{_steps(list(view.policies))}. checkpoint.keep_last, keep_every, keep_best and `quatrain checkpoint pin` "
            "say what is kept"
        )
    raise NotFound(f"job {view.job!r} has no policy of step {wanted}; the newest is {view.policy_version}")


def _checkpoint(view: JobView, step: int) -> Ref:
    """The PPO checkpoint of a step. Raises NotFound saying what became of it."""
    for ref in view.checkpoints:
        if (ref["stage"], ref["step"]) == ("ppo", step):
            return ref
    there = _steps([ref["step"] for ref in view.checkpoints if ref["stage"] == "ppo"])
    for released in view.released.values():
        if (released["stage"], released["step"]) == ("ppo", step):
            raise NotFound(
                f"the checkpoint of step {step} of job {view.job!r} was released on {released['time']} by "
                f"{released['actor']} ({released['reason']}); there are those of steps {there}"
            )
    raise NotFound(f"job {view.job!r} has no PPO checkpoint of step {step}; there are those of steps {there}")


def _about(ref: Ref, event: Event) -> Event:
    """A new event like `event` about a checkpoint: each try has a nonce of its own."""
    return Event(event.type, {**{name: ref[name] for name in ("stage", "step", "key")}, **event.data}, event.actor)


def _steps(steps: list[int]) -> str:
    return ", ".join(str(step) for step in sorted(steps)) or "(none)"
