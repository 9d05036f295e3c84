"""Finds jobs without a living owner and owns them, by priority, then by age."""

import asyncio
import time
from dataclasses import dataclass, field

from quatrain.errors import Corrupt, InvalidInput, NotFound, QuatrainError, Unavailable
from quatrain.joblog import JobLog, jobs
from quatrain.orchestrator.owner import own
from quatrain.orchestrator.plan import Plan, read_plan
from quatrain.orchestrator.run import Surroundings
from quatrain.telemetry.logging import get_logger

log = get_logger("scheduler")

LONGEST_PAUSE_SECONDS = 60.0
LOOKS_A_LEASE = 3
"""A job is taken over after at least so many looks, each of which found no owner."""


@dataclass
class _Candidate:
    """An unfinished job that nobody here owns."""

    plan: Plan
    log: JobLog
    unowned: float = 0.0
    """Seconds that it has looked unowned."""
    looked: float | None = None

    def look(self, most: float) -> float:
        """Adds the time since the last look to `unowned`, at most `most` seconds: if this process itself stood still,
        the owner may have, too."""
        now = time.monotonic()
        self.unowned += 0.0 if self.looked is None else min(now - self.looked, most)
        self.looked = now
        return self.unowned

    def begin_again(self) -> None:
        """The job has a living owner, or nobody could have told."""
        self.unowned, self.looked = 0.0, None


@dataclass
class _Crashes:
    """Owners of one job that ended by a bug here, and how long this process leaves the job alone."""

    count: int = 0
    not_before: float = 0.0

    def add(self) -> None:
        """One more; the pause doubles up to a minute."""
        self.count += 1
        self.not_before = time.monotonic() + min(2.0**self.count, LONGEST_PAUSE_SECONDS)


@dataclass
class Scheduler:
    """`run` works until `stop`. `lease`: how long a job must look unowned on our own clock before it is taken."""

    around: Surroundings
    lease: float
    poll: float
    max_jobs: int = 64
    _candidates: dict[str, _Candidate] = field(default_factory=dict)
    _unreadable: set[str] = field(default_factory=set)
    _owned: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    _crashes: dict[str, _Crashes] = field(default_factory=dict)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Looks for work every `poll` seconds."""
        while not self._stopping.is_set():
            try:
                await self._look()
            except Unavailable as error:
                log.warning("cannot look for jobs", error=error.message)
                # Nobody could renew a hint either: owners get the whole lease time again.
                for candidate in self._candidates.values():
                    candidate.begin_again()
            await asyncio.sleep(self.poll)

    async def stop(self) -> None:
        """Gives all jobs up; other replicas take them."""
        self._stopping.set()
        for task in self._owned.values():
            task.cancel()
        await asyncio.gather(*self._owned.values(), return_exceptions=True)

    async def _look(self) -> None:
        active = await asyncio.to_thread(jobs.list_active, self.around.store)
        for job in [name for name, task in self._owned.items() if task.done()]:
            self._report(job, self._owned.pop(job))
            self._candidates.pop(job, None)
        for job in [name for name in self._candidates if name not in active]:
            del self._candidates[job]
        for job in active:
            if job not in self._owned and job not in self._candidates and job not in self._unreadable:
                await self._meet(job)
        ordered = sorted(
            self._candidates.values(), key=lambda c: (-int(c.plan.spec["priority"]), c.plan.create_time, c.plan.job)
        )
        for candidate in ordered:
            if len(self._owned) >= self.max_jobs or self._stopping.is_set():
                return
            if candidate.plan.job not in self._owned and await self._is_free(candidate):
                del self._candidates[candidate.plan.job]
                self._owned[candidate.plan.job] = asyncio.create_task(
                    own(candidate.plan, self.around, candidate.log), name=f"own {candidate.plan.job}"
                )

    async def _meet(self, job: str) -> None:
        """Makes an unfinished job a candidate. One damaged job must not keep the others from their owners."""
        try:
            document = await asyncio.to_thread(jobs.read_spec, self.around.store, job)
            job_log = JobLog(self.around.store, job)
            await asyncio.to_thread(job_log.refresh)
            if job_log.view.finished:  # Its owner died between the terminal event and these two.
                await self.around.queue.close_job(job)
                await asyncio.to_thread(jobs.retire, self.around.store, job)
                return
            self._candidates[job] = _Candidate(read_plan(job, document), job_log)
        except NotFound:
            return  # The index entry is made before spec.json: the job is being created, or never was.
        except (Corrupt, InvalidInput) as error:
            log.error("job cannot be read and gets no owner", job=job, error=error.message)
            self._unreadable.add(job)

    async def _is_free(self, candidate: _Candidate) -> bool:
        """A job that was never owned is free at once; another one after it has looked unowned for the lease time."""
        crashes = self._crashes.get(candidate.plan.job)
        if crashes is not None and time.monotonic() < crashes.not_before:
            return False
        holder = await self.around.queue.holder(candidate.plan.job)
        if holder is not None:
            candidate.begin_again()
            return False
        if candidate.log.view.epoch == 0:
            await asyncio.to_thread(candidate.log.refresh)
            if candidate.log.view.epoch == 0:
                return True
        return candidate.look(self.lease / LOOKS_A_LEASE) >= self.lease

    def _report(self, job: str, task: asyncio.Task[None]) -> None:
        """A job's task must not end by an error: what it did not handle is a bug, and another owner may do better."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, QuatrainError):
            log.error("owner gave up", job=job, error=error.message)
        elif error is not None:
            log.error("owner crashed", job=job, exc_info=error)
        if error is not None and not isinstance(error, Unavailable):
            self._crashes.setdefault(job, _Crashes()).add()
        else:
            self._crashes.pop(job, None)
