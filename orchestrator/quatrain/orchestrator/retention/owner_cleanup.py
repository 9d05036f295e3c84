"""The owner's part of retention: it releases what a new checkpoint has made needless, and deletes that meanwhile."""

import asyncio

from quatrain.concurrency import uncancellable
from quatrain.errors import Unavailable
from quatrain.faults import fault_point
from quatrain.joblog import Event, JobView
from quatrain.orchestrator.job.run import JobRun
from quatrain.orchestrator.retention.garbage import garbage_of
from quatrain.orchestrator.retention.policy import next_release
from quatrain.orchestrator.retention.sweep import sweep_in_thread
from quatrain.telemetry.logging import get_logger

log = get_logger("retention")


async def release_needless(run: JobRun) -> None:
    """Write an event for everything that the job does not need any more; called after a checkpoint. Raises Fenced.

    While the store is away nothing is given up; the next checkpoint decides anew.
    """

    def decide(view: JobView) -> Event | None:
        release = next_release(view, run.plan.spec)
        if release is None:
            return None
        return Event(release, run.context.name, epoch=run.epoch, attempt=view.attempt)

    released = False
    try:
        while True:
            async with run.append_lock:
                event = await uncancellable(asyncio.to_thread(run.log.append_decided, decide))
            if event is None:
                break
            released = True
    except Unavailable as error:
        log.warning("object store is away, nothing more is released now", job=run.plan.job, error=error.message)
    fault_point("retention.after_release")
    if released:
        run.released.set()


async def delete_released(run: JobRun) -> None:
    """Delete what the log has given up: once at the beginning for the owners before us, then after each release."""
    job, store = run.plan.job, run.context.store
    while True:
        run.released.clear()
        try:
            async with run.append_lock:  # The view must not change while it is read.
                found = garbage_of(run.view, run.plan)
            await sweep_in_thread(store, found)
        except Unavailable as error:
            log.warning("object store is away, data are deleted later", job=job, error=error.message)
        await run.released.wait()


__all__ = ["delete_released", "release_needless"]
