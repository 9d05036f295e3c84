"""The watch stream: a snapshot, then every event in order, then the end after the terminal one."""

import asyncio
import time
from collections.abc import AsyncIterator, Sequence

from quatrain.errors import Unavailable
from quatrain.joblog import Event, JobLog, JobView, apply, jobs
from quatrain.joblog.jobs import check_kept
from quatrain.orchestrator.api.access import check_visible
from quatrain.orchestrator.api.messages import event_message, job_message
from quatrain.orchestrator.plan import Plan, read_plan
from quatrain.storage import ObjectStore
from quatrain.v1 import job_pb2

HEARTBEAT_SECONDS = 5.0


async def watch(
    store: ObjectStore, job: str, after: int, poll: float, stopping: asyncio.Event
) -> AsyncIterator[job_pb2.WatchJobResponse]:
    """Yield the messages of one watcher, beginning with a snapshot if `after` is 0, else after that revision.

    Raises Unavailable once `stopping` is set: the watcher goes on at another replica, or at the next process.
    """
    plan = read_plan(job, await asyncio.to_thread(jobs.read_spec, store, job))
    check_visible(plan)
    log = JobLog(store, job, keep_steps=False)
    view = JobView(job)
    events = await asyncio.to_thread(log.refresh)
    check_kept(job, log.view)
    if after == 0:
        snapshot = await asyncio.to_thread(job_message, plan, log.view, with_spec=True)
        after = log.view.revision
        yield job_pb2.WatchJobResponse(snapshot=snapshot, revision=after)
    spoken = time.monotonic()
    while True:
        for message in await asyncio.to_thread(_deltas, plan, view, events, after):
            spoken = time.monotonic()
            yield message
        if view.finished:
            return
        if time.monotonic() - spoken > HEARTBEAT_SECONDS:
            spoken = time.monotonic()
            yield job_pb2.WatchJobResponse(heartbeat=job_pb2.WatchHeartbeat(), revision=view.revision)
        await asyncio.sleep(poll)
        if stopping.is_set():
            raise Unavailable("this replica is stopping; watch again, after the last revision")
        events = await asyncio.to_thread(log.refresh)


def _deltas(plan: Plan, view: JobView, events: Sequence[Event], after: int) -> list[job_pb2.WatchJobResponse]:
    """Fold the events one by one, so that each message carries the job as it was right after its event."""
    messages = []
    for event in events:
        if view.finished:
            break  # What is kept or deleted after the end of a job is nothing to watch.
        apply(view, event)
        view.forget_steps()
        if event.revision > after:
            messages.append(
                job_pb2.WatchJobResponse(
                    event=event_message(event),
                    job=job_message(plan, view, with_spec=False),
                    revision=event.revision,
                )
            )
    return messages
