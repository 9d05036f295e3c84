"""Reads jobs for the API: any replica folds the log itself. What callers may not see does not exist for them."""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from quatrain.batches import BatchRow, read_batch
from quatrain.concurrency import gather_some_at_a_time
from quatrain.errors import Corrupt, NotFound
from quatrain.joblog import Event, JobLog, JobView, jobs
from quatrain.joblog.jobs import check_kept
from quatrain.joblog.payloads import BatchSealed, Evaluated
from quatrain.orchestrator.api.access import check_changeable, check_visible
from quatrain.orchestrator.plan import Plan, read_plan
from quatrain.rpc.server.access import caller
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_object
from quatrain.telemetry.logging import get_logger

log = get_logger("reading")

JOBS_KEPT = 2048
"""Jobs whose logs are kept folded without their steps, some ten kilobytes each."""
JOBS_KEPT_WITH_STEPS = 8
"""Jobs whose logs are kept whole, up to half a kilobyte for every step."""
CONCURRENT_READS = 4
"""Jobs that a listing reads at a time; owners need threads for their events meanwhile."""


@dataclass(frozen=True)
class JobRecord:
    """A job's plan and its log, folded up to now."""

    plan: Plan
    log: JobLog

    @property
    def job(self) -> str:
        """Return the id of the job."""
        return self.plan.job


class JobReader:
    """A reader that keeps the logs of the jobs that were asked for last, so that a call folds only what is new."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self._records: OrderedDict[str, JobRecord] = OrderedDict()
        self._with_steps: OrderedDict[str, JobRecord] = OrderedDict()

    async def read(self, job: str, *, deleted_too: bool = False) -> JobRecord:
        """Return a job that the caller may read, as it is now, without its steps. Raises NotFound, Unavailable."""
        record = await self._known(job)
        check_visible(record.plan)
        return await _refreshed(record, deleted_too=deleted_too)

    async def read_steps(self, job: str) -> JobRecord:
        """Return the same as `read`, with what the log says of every step."""
        plan = (await self._known(job)).plan
        check_visible(plan)
        record = self._with_steps.setdefault(job, JobRecord(plan, JobLog(self._store, job)))
        _keep_newest(self._with_steps, job, JOBS_KEPT_WITH_STEPS)
        return await _refreshed(record, deleted_too=False)

    async def read_to_change(self, job: str, *, deleted_too: bool = False) -> JobRecord:
        """Return a job that the caller may change, as it is now. Raises NotFound, PermissionRefused, Unavailable."""
        record = await self._known(job)
        check_changeable(record.plan)
        return await _refreshed(record, deleted_too=deleted_too)

    async def append_decided(
        self, job: str, decide: Callable[[JobView], Event | None], *, deleted_too: bool = False
    ) -> None:
        """Write what `decide` makes of the newest view of a job that the caller may change, if anything.

        Raises NotFound, PermissionRefused, Unavailable, and what `decide` raises.
        """
        record = await self.read_to_change(job, deleted_too=deleted_too)
        await asyncio.to_thread(record.log.append_decided, decide)

    async def _known(self, job: str) -> JobRecord:
        record = self._records.get(job)
        if record is None:
            plan = read_plan(job, await asyncio.to_thread(jobs.read_spec, self._store, job))
            without_steps = JobLog(self._store, job, keep_steps=False)
            record = self._records.setdefault(job, JobRecord(plan, without_steps))
        _keep_newest(self._records, job, JOBS_KEPT)
        return record

    async def list_all(self) -> list[JobRecord]:
        """Return all jobs that the caller may read, newest first."""
        names = await asyncio.to_thread(jobs.list_jobs, self._store)
        found = await gather_some_at_a_time([partial(self._readable, name) for name in names], CONCURRENT_READS)
        records = [record for record in found if record is not None]
        return sorted(records, key=lambda record: (record.plan.document.create_time, record.job), reverse=True)

    async def _readable(self, job: str) -> JobRecord | None:
        """Return the job if the caller may read it, else None; a damaged one must not hide the others."""
        try:
            record = await self._known(job)
            if not caller().may_read(record.plan.document.owner):
                return None
            await _refreshed(record, deleted_too=True)
            return record if record.log.view.deleted is None else None
        except (Corrupt, NotFound) as error:
            log.error("job cannot be listed", job=job, error=error.message)
            return None

    async def rows(self, record: JobRecord, step: int | None, *, evaluation: bool) -> tuple[int, list[BatchRow]]:
        """Return samples of a step (absent: the newest) of a job read with its steps, in the order of the batch.

        Raises NotFound naming what there is.
        """
        view = record.log.view
        sealed: Mapping[int, Evaluated | BatchSealed] = view.evaluations if evaluation else view.sealed
        what = "evaluation" if evaluation else "sealed batch"
        wanted = max(sealed, default=None) if step is None else step
        if wanted is None or wanted not in sealed:
            there = f"there are those of steps {min(sealed)} to {max(sealed)}" if sealed else "there is none yet"
            raise NotFound(f"job {record.job!r} has no {what}{'' if step is None else f' of step {step}'}; {there}")
        ref = sealed[wanted].batch
        data = await asyncio.to_thread(read_object, self._store, ref.key, ref.sha256)
        return wanted, await asyncio.to_thread(read_batch, data)


def _keep_newest(records: OrderedDict[str, JobRecord], job: str, most: int) -> None:
    """Mark `job` as used now, and drop the jobs that were not used for the longest time."""
    records.move_to_end(job)
    while len(records) > most:
        records.popitem(last=False)


async def _refreshed(record: JobRecord, *, deleted_too: bool) -> JobRecord:
    await asyncio.to_thread(record.log.refresh)
    if not deleted_too:
        check_kept(record.job, record.log.view)
    return record
