"""Deletes what the log has given up. Any replica may do it at any time, twice or at once: the log has decided."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from quatrain.errors import Corrupt, NotFound, Unavailable
from quatrain.faults import fault_point
from quatrain.joblog import Event, JobLog, JobView, jobs
from quatrain.orchestrator.plan import read_plan
from quatrain.orchestrator.retention.garbage import MANIFEST, JobGarbage, garbage_of
from quatrain.orchestrator.retention.policy import next_release
from quatrain.storage import ObjectStore
from quatrain.storage.protocol import pages
from quatrain.telemetry.logging import get_logger

log = get_logger("retention")

PENDING_SECONDS = 600.0
"""How long an entry of the index waits, on our own clock, for an event that may never be written."""

COPY_SECONDS = 6 * 3600.0
"""How long a copy for a fork may show no new file, on our own clock, before its maker counts as dead."""


def sweep(store: ObjectStore, found: JobGarbage, stop: threading.Event) -> None:
    """Delete the garbage of one job, until `stop` at most. Raises Unavailable."""
    deleted = 0
    for prefix in found.folders():
        for page in pages(store, prefix):
            # The manifest first: a folder that is half deleted must not look whole.
            garbage = [stat.key for stat in page if found.is_garbage(stat.key)]
            for key in sorted(garbage, key=lambda key: not key.endswith(MANIFEST)):
                if stop.is_set():
                    return
                store.delete(key)
                fault_point("retention.between_deletes")
            deleted += len(garbage)
    if deleted:
        log.info("objects deleted", job=found.job, count=deleted)


async def sweep_in_thread(store: ObjectStore, found: JobGarbage) -> None:
    """Run `sweep` in a thread; a cancellation ends it at the next object. Raises Unavailable."""
    stop = threading.Event()
    try:
        await asyncio.to_thread(sweep, store, found, stop)
    finally:
        stop.set()


@dataclass
class Sweeper:
    """The cleaner of the jobs in the index `cleanup/`: finished ones, deleted ones, and those of which somebody has
    released a checkpoint. A job with an owner is cleaned by that owner."""

    store: ObjectStore
    name: str
    every: float
    beside: Callable[[], None] = lambda: None
    """What cleans up things that belong to no job: it is called in the event loop each time."""
    _pending: dict[str, float] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)
    _copies: dict[str, tuple[list[str], float]] = field(default_factory=dict)
    """The files that were copied for forks that are no jobs yet, and when they last changed."""
    _stop: threading.Event = field(default_factory=threading.Event)

    async def run(self) -> None:
        """Clean every `every` seconds until cancelled."""
        try:
            while True:
                try:
                    await asyncio.to_thread(self.clean_all)
                    self.beside()
                except Unavailable as error:
                    log.warning("object store is away, cleaning later", error=error.message)
                await asyncio.sleep(self.every)
        finally:
            self._stop.set()

    def clean_all(self) -> None:
        """Go through the index once. Raises Unavailable."""
        index = jobs.list_cleanups(self.store)
        entries = {jobs.cleanup_key(job, revision) for job, revisions in index.items() for revision in revisions}
        self._pending = {key: since for key, since in self._pending.items() if key in entries}
        self._copies = {job: seen for job, seen in self._copies.items() if job in index}
        for job, revisions in index.items():
            try:
                revision = self._clean(job)
            except (Corrupt, NotFound) as error:
                if self._is_only_copied(job):
                    self._clean_copy(job, revisions)
                    continue
                # Logged once: the job may be readable the next time.
                if job not in self._unreadable:
                    log.error("job cannot be cleaned", job=job, error=error.message)
                self._unreadable.add(job)
                continue
            self._unreadable.discard(job)
            if self._stop.is_set():
                return
            fault_point("retention.before_done")
            for entry in revisions:
                self._close(jobs.cleanup_key(job, entry), done=entry <= revision)

    def _clean(self, job: str) -> int:
        """Release and delete what a job does not need. Returns the revision at which this was decided."""
        plan = read_plan(job, jobs.read_spec(self.store, job))
        job_log = JobLog(self.store, job)
        job_log.refresh()
        revision = job_log.view.revision

        def decide(view: JobView) -> Event | None:
            release = next_release(view, plan.spec) if view.finished and view.deleted is None else None
            return None if release is None else Event(release, self.name)

        while job_log.append_decided(decide) is not None:
            continue
        sweep(self.store, garbage_of(job_log.view, plan), self._stop)
        return revision

    def _is_only_copied(self, job: str) -> bool:
        """Return whether there is a copy for a fork at most, but no job. With events it is a job without its spec."""
        if self.store.stat(jobs.spec_key(job)) is not None:
            return False
        return not self.store.list(f"jobs/{job}/events/", limit=1)

    def _clean_copy(self, job: str, revisions: Sequence[int]) -> None:
        """Delete what was copied for a fork that never came to be. Raises Unavailable."""
        copied = [stat.key for page in pages(self.store, f"jobs/{job}/ppo/checkpoints/") for stat in page]
        seen, since = self._copies.get(job, ([], 0.0))
        if job not in self._copies or seen != copied:
            self._copies[job] = (copied, time.monotonic())
            return
        if time.monotonic() - since <= COPY_SECONDS:
            return
        for key in sorted(copied, key=lambda key: not key.endswith(MANIFEST)):
            # Checked before each: if we stood still meanwhile, the request may have been made again.
            if self._stop.is_set() or self.store.stat(jobs.spec_key(job)) is not None:
                return
            self.store.delete(key)
        for revision in revisions:
            self.store.delete(jobs.cleanup_key(job, revision))
        if copied:
            log.info("copy for a fork that never came to be deleted", job=job, count=len(copied))

    def _close(self, key: str, *, done: bool) -> None:
        """Take an entry out of the index. One that is ahead of its event waits for it, but not forever: its writer may
        have died before it wrote the event."""
        since = self._pending.setdefault(key, time.monotonic())
        if done or time.monotonic() - since > PENDING_SECONDS:
            self.store.delete(key)
            del self._pending[key]
