"""Follows a job across broken connections and replaced servers: every change once, in order, to the terminal one."""

import asyncio
import contextlib
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import TypeVar

from quatrain.backoff import Backoff
from quatrain.client.connection import Connection
from quatrain.client.resources import Update, event_from, job_from
from quatrain.errors import TRANSIENT_ERRORS
from quatrain.v1 import job_pb2

# Seconds for which the server may be unavailable before following gives up, and the pauses between new tries.
PATIENCE = 120.0
BACKOFF = Backoff(first=0.2, longest=5.0)

T = TypeVar("T")


async def follow(
    connection: Connection, job: str, after_revision: int, patience: float
) -> AsyncGenerator[Update, None]:
    """Yield a snapshot (unless `after_revision` is above 0), then every change; end after the terminal one.

    Raises NotFound; Unavailable when the first connection fails, or when a later one stays down for `patience` seconds.
    """
    revision, met, tries = after_revision, False, 0
    finished, unavailable_since = False, None
    while True:
        try:
            request = job_pb2.WatchJobRequest(job_id=job, after_revision=revision)
            async with contextlib.aclosing(connection.stream(connection.jobs.WatchJob, request)) as messages:
                async for message in messages:
                    met, tries, unavailable_since = True, 0, None
                    update = _update_from(message)
                    # A revision that was seen before the connection broke may come again.
                    if update is None or (update.event is not None and update.revision <= revision):
                        continue
                    revision = update.revision
                    yield update
                    if update.job.finished:
                        return
            if finished:
                return
            # If the job finished after the stream had ended, the next stream has the terminal event.
            finished = await _finished(connection, job)
        except TRANSIENT_ERRORS:
            # The time of the last message would not do: the caller may have been busy with it since.
            unavailable_since = unavailable_since or time.monotonic()
            if not met or time.monotonic() - unavailable_since > patience:
                raise
        tries += 1
        await asyncio.sleep(BACKOFF.pause(tries))


async def retry_while_unavailable(call: Callable[[], Awaitable[T]], patience: float = PATIENCE) -> T:
    """Return the answer of a call that may be sent again. Raises Unavailable after `patience` seconds without one."""
    give_up, tries = time.monotonic() + patience, 0
    while True:
        try:
            return await call()
        except TRANSIENT_ERRORS:
            if time.monotonic() > give_up:
                raise
        tries += 1
        await asyncio.sleep(BACKOFF.pause(tries))


def _update_from(message: job_pb2.WatchJobResponse) -> Update | None:
    kind = message.WhichOneof("kind")
    if kind == "snapshot":
        job = job_from(message.snapshot)
        return Update(job, None, message.revision or job.revision)
    if kind == "event":
        event = event_from(message.event)
        return Update(job_from(message.job), event, message.revision or event.revision)
    return None


async def _finished(connection: Connection, job: str) -> bool:
    """Return whether the job has finished: then a stream that begins now has the terminal event."""
    answer = await connection.call(connection.jobs.GetJob, job_pb2.GetJobRequest(job_id=job))
    return job_from(answer.job).finished
