"""Intents that any replica may write into a job's log: cancel, pause, resume. Asking twice is as good as once."""

from quatrain.errors import WrongState
from quatrain.joblog import Event, JobView
from quatrain.joblog.payloads import CancelRequested, PauseRequested, ResumeRequested
from quatrain.orchestrator.api.reading import JobReader


async def ask_cancel(reader: JobReader, job: str, intent: CancelRequested, actor: str) -> None:
    """Ask for the end of a job; one that has ended is left alone.

    Raises NotFound, PermissionRefused, Unavailable.
    """
    event = Event(intent, actor)

    def decide(view: JobView) -> Event | None:
        cancel = view.intents.cancel
        known = cancel is not None and (cancel.now or not intent.now)
        return None if view.finished or known else event

    await reader.append_decided(job, decide)


async def ask_pause(reader: JobReader, job: str, intent: PauseRequested, actor: str) -> None:
    """Ask for a pause.

    Raises WrongState when the job has ended or goes to its end; NotFound, PermissionRefused, Unavailable.
    """
    event = Event(intent, actor)

    def decide(view: JobView) -> Event | None:
        if view.finished:
            raise WrongState(f"job {job!r} is {view.state} and cannot be paused; its results stay where they are")
        if view.intents.cancel is not None:
            raise WrongState(f"job {job!r} is being cancelled and cannot be paused any more")
        return event if view.intents.pause is None else None

    await reader.append_decided(job, decide)


async def ask_resume(reader: JobReader, job: str, intent: ResumeRequested, actor: str) -> None:
    """End a pause, or take back that one was asked for; a job without either goes on as it does.

    Raises WrongState when the job has ended; NotFound, PermissionRefused, Unavailable.
    """
    event = Event(intent, actor)

    def decide(view: JobView) -> Event | None:
        if view.finished:
            raise WrongState(
                f"job {job!r} is {view.state} and cannot be resumed; `quatrain job fork {job}` starts a new job from it"
            )
        return None if view.intents.pause is None else event

    await reader.append_decided(job, decide)
