"""Wishes that any replica may write into a job's log: cancel, pause, resume. Asking twice is as good as once."""

import asyncio
import contextlib

from quatrain.errors import WrongState
from quatrain.orchestrator.api.reading import JobReader


async def ask_cancel(reader: JobReader, job: str, actor: str, *, now: bool, reason: str) -> None:
    """Asks for the end of a job; one that has ended is left alone. Raises NotFound, PermissionRefused, Unavailable."""
    record = await reader.read_to_change(job)
    wish = record.log.view.intents.get("cancel")
    if record.log.view.finished or (wish is not None and (wish.get("now") or not now)):
        return
    with contextlib.suppress(WrongState):  # It has ended meanwhile.
        await asyncio.to_thread(record.log.append_intent, "cancel_requested", {"now": now, "reason": reason}, actor)


async def ask_pause(reader: JobReader, job: str, actor: str, *, reason: str) -> None:
    """Asks for a pause.

    Raises WrongState when the job has ended or goes to its end; NotFound, PermissionRefused, Unavailable.
    """
    record = await reader.read_to_change(job)
    view = record.log.view
    if view.finished:
        raise WrongState(f"job {job!r} is {view.state} and cannot be paused; its result stays where it is")
    if "cancel" in view.intents:
        raise WrongState(f"job {job!r} goes to its end at somebody's wish and cannot be paused any more")
    if "pause" not in view.intents:
        await asyncio.to_thread(record.log.append_intent, "pause_requested", {"reason": reason}, actor)


async def ask_resume(reader: JobReader, job: str, actor: str, *, reason: str) -> None:
    """Ends a pause, or the wish for one; a job without it goes on as it does.

    Raises WrongState when the job has ended; NotFound, PermissionRefused, Unavailable.
    """
    record = await reader.read_to_change(job)
    view = record.log.view
    if view.finished:
        raise WrongState(
            f"job {job!r} is {view.state} and cannot be resumed; `quatrain job fork {job}` starts a new job from it"
        )
    if "pause" in view.intents:
        await asyncio.to_thread(record.log.append_intent, "resume_requested", {"reason": reason}, actor)
