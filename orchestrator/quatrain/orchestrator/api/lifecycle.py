"""Wishes that any replica may write into a job's log: cancel, pause, resume. Asking twice is as good as once."""

from quatrain.errors import WrongState
from quatrain.joblog import Event, JobView
from quatrain.orchestrator.api.reading import JobReader


async def ask_cancel(reader: JobReader, job: str, event: Event) -> None:
    """Asks for the end of a job by `cancel_requested`; one that has ended is left alone.

    Raises NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        wish = view.intents.get("cancel")
        known = wish is not None and (wish["now"] or not event.data["now"])
        return None if view.finished or known else event

    await reader.append_decided(job, decide)


async def ask_pause(reader: JobReader, job: str, event: Event) -> None:
    """Asks for a pause by `pause_requested`.

    Raises WrongState when the job has ended or goes to its end; NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        if view.finished:
            raise WrongState(f"job {job!r} is {view.state} and cannot be paused; its results stay where they are")
        if "cancel" in view.intents:
            raise WrongState(f"job {job!r} goes to its end at somebody's wish and cannot be paused any more")
        return None if "pause" in view.intents else event

    await reader.append_decided(job, decide)


async def ask_resume(reader: JobReader, job: str, event: Event) -> None:
    """Ends a pause, or the wish for one, by `resume_requested`; a job without it goes on as it does.

    Raises WrongState when the job has ended; NotFound, PermissionRefused, Unavailable.
    """

    def decide(view: JobView) -> Event | None:
        if view.finished:
            raise WrongState(
                f"job {job!r} is {view.state} and cannot be resumed; `quatrain job fork {job}` starts a new job from it"
            )
        return event if "pause" in view.intents else None

    await reader.append_decided(job, decide)
