"""Gives jobs owners: as many at once as the pool has slots, by priority, then by age; lost ones are taken over.

Every orchestrator decides for itself by the index of unfinished jobs, the owners' hints in the queue and, where these
do not tell, the logs. Two may want the last slot at the same time. So a waiting job is reserved by its hint first, then
everything is counted again, and an orchestrator that finds too many gives the reservation back: of two, at least one
sees the other. A reservation is no event. A process that stands still between the count and the taking, or a queue that
is wiped there, may bring one job too many, which costs memory and time in generation until a job ends.

An unfinished job of the index is, in this process, in exactly one of these (`admission.py` has the states in
`_unowned`):

| where | who brings it there | how it leaves |
|---|---|---|
| nowhere: new, or not readable now | index, `_give_up`, `_poll` when its owner here ended | `_discover` |
| `_left_alone` | `_others` (bad name), `_discover` (other pool) | with its index entry |
| `_unowned` | `_discover` | `_own`; `_give_up`; with its index entry, or when its log says that it has finished |
| `_owned` | `_own`, with the log that `_unowned` had | when its task is done |

Slots taken are those of `_owned` and of the HELD and LOST ones in `_unowned`. `_crashes` and `_damaged` only say how
long this process leaves a job alone. All of this changes in `_poll` only, of which one runs at a time.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

from quatrain.backoff import Backoff
from quatrain.concurrency import cancel_and_wait, finish_all
from quatrain.errors import Corrupt, InvalidInput, NotFound, QuatrainError, Unavailable
from quatrain.joblog import JobLog, jobs
from quatrain.joblog.jobs import IndexStamp
from quatrain.orchestrator.job.context import OrchestratorContext
from quatrain.orchestrator.job.run import UNAVAILABLE
from quatrain.orchestrator.ownership import owner
from quatrain.orchestrator.ownership.admission import SUSPECT_AFTER, AdmissionState, PoolCapacity, UnownedJob
from quatrain.orchestrator.plan import Rank, read_plan
from quatrain.orchestrator.rollout.large_results import results_prefix
from quatrain.queue.names import check_name
from quatrain.storage.folders import delete_prefix
from quatrain.telemetry.logging import get_logger

log = get_logger("scheduler")

BACKOFF = Backoff(first=2.0, longest=60.0)
POLLS_PER_LEASE = 3
"""A job is taken over after at least this many polls that found no owner."""
CAPACITY_SECONDS = 2.0
READS_AT_ONCE = 8
TAKES_SLOT = frozenset({AdmissionState.HELD, AdmissionState.LOST})


@dataclass
class _Pause:
    """The pause for which this process leaves a job alone whose owner ended by a bug here, or that was not readable."""

    count: int = 0
    not_before: float = 0.0

    def add(self) -> None:
        """Begin the next pause, which is twice as long, up to a minute."""
        self.count += 1
        self.not_before = time.monotonic() + BACKOFF.pause(self.count)


@dataclass(frozen=True)
class _OwnedJob:
    """A job that this process owns."""

    task: asyncio.Task[None]
    log: JobLog
    taken_as_suspect: bool

    @property
    def suspect(self) -> bool:
        """Return whether it was taken as a job that may kill its owners, and has not got on since."""
        return self.taken_as_suspect and self.log.view.owners_without_progress >= SUSPECT_AFTER


@dataclass
class Scheduler:
    """What gives the jobs of one pool owners in this process; the module says how its fields hold together.

    `run` works until `stop`. `lease`: how long a job must look lost on our own clock before it is taken over.
    """

    context: OrchestratorContext
    lease: float
    poll: float
    pool: str = "default"
    max_jobs: int = 64
    _capacity: PoolCapacity = field(init=False)
    _unowned: dict[str, UnownedJob] = field(default_factory=dict)
    _left_alone: set[str] = field(default_factory=set)
    """Unfinished jobs that are not ours to own: those of another pool, or with a bad name."""
    _owned: dict[str, _OwnedJob] = field(default_factory=dict)
    _crashes: dict[str, _Pause] = field(default_factory=dict)
    _damaged: dict[str, _Pause] = field(default_factory=dict)
    """Jobs that could not be read. They are tried again: the stored bytes may be sound, or be repaired."""
    _reasons: dict[str, str] = field(default_factory=dict)
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._capacity = PoolCapacity(self.pool)

    async def run(self) -> None:
        """Look for work about every `poll` seconds."""
        counting = asyncio.create_task(self._refresh_capacity())
        try:
            while not self._stopping.is_set() and not counting.done():
                try:
                    await self._poll()
                except Unavailable as error:
                    log.warning("cannot look for jobs", error=error.message)
                    # Nobody could renew a hint either: owners get the whole lease time again.
                    for job in self._unowned.values():
                        job.begin_again()
                # Two that gave the same slot back must not collide again.
                await asyncio.sleep(self.poll * random.uniform(0.8, 1.2))
            if counting.done():
                counting.result()
        finally:
            await cancel_and_wait(counting)

    async def stop(self) -> None:
        """Give all jobs up; other replicas take them."""
        self._stopping.set()
        await cancel_and_wait(*(owned.task for owned in self._owned.values()))

    def conditions(self, job: str) -> dict[str, str]:
        """Return what people should know of a job and its log cannot say, by name.

        That is why it waits for its turn, as of the last poll, or why its owner here cannot write.
        """
        said = {"queue": self._reasons.get(job, ""), UNAVAILABLE: self.context.troubles.get(job, "")}
        return {name: text for name, text in said.items() if text}

    def admission_states(self) -> Counter[AdmissionState]:
        """Count the unfinished jobs of the pool by state as of the last poll, ours among those that are held."""
        return Counter(known.admission_state for known in self._unowned.values()) + Counter(
            {AdmissionState.HELD: len(self._owned)}
        )

    @property
    def capacity(self) -> PoolCapacity:
        """Return how many jobs may run, as counted last."""
        return self._capacity

    async def _refresh_capacity(self) -> None:
        """Keep the number of slots up to date. While generation is away its last answer counts."""
        job_slots = 0
        known = True
        while True:
            learners = await self.context.learners.count()
            self._capacity = PoolCapacity(self.pool, job_slots, learners)
            try:
                job_slots = (await self.context.services.capabilities(CAPACITY_SECONDS)).job_slots
                known = True
            except QuatrainError as error:
                if known:  # Logged once, however long generation is away.
                    log.info("job slots not known", pool=self.pool, last=job_slots, error=error.message)
                known = False
            self._capacity = PoolCapacity(self.pool, job_slots, learners)
            await asyncio.sleep(CAPACITY_SECONDS)

    async def _poll(self) -> None:
        for job in [name for name, owned in self._owned.items() if owned.task.done()]:
            self._report(job, self._owned.pop(job).task)
        active = await asyncio.to_thread(jobs.list_active, self.context.store)
        self._left_alone.intersection_update(active)
        self._damaged = {job: pause for job, pause in self._damaged.items() if job in active}
        others = self._others(active)
        await self._refresh_known(others, await self.context.queue.holders(list(others)))
        self._take_lost()
        await self._take_waiting()
        self._explain()

    def _others(self, active: Mapping[str, IndexStamp]) -> dict[str, IndexStamp]:
        """Return the unfinished jobs of the pool that are not owned here, and new ones whose pool is not known yet."""
        for job in active.keys() - self._unowned.keys() - self._owned.keys() - self._left_alone:
            try:
                check_name("job", job)
            except InvalidInput as error:
                log.error("job gets no owner", job=job, error=error.message)
                self._left_alone.add(job)
        return {job: stamp for job, stamp in active.items() if job not in self._owned and job not in self._left_alone}

    async def _refresh_known(self, others: Mapping[str, IndexStamp], holders: Mapping[str, str]) -> None:
        """Bring what is known of jobs that are not owned here up to date.

        Index entries and hints suffice for most. Logs are read of those that are new, have just lost their owner, or
        got an intent.
        """
        self._unowned = {job: known for job, known in self._unowned.items() if job in others}
        readings: list[Callable[[], Awaitable[None]]] = []
        for job, stamp in others.items():
            known = self._unowned.get(job)
            if known is None:
                readings.append(partial(self._discover, job, stamp, held=job in holders))
            elif job in holders:
                known.hold()
            elif known.log is None:
                known.look(self.lease / POLLS_PER_LEASE)  # It may be lost, and reading a long log takes time.
                readings.append(partial(self._read, known, stamp))
            elif known.stamp != stamp:
                readings.append(partial(self._read, known, stamp))
        # One log is read in turn, in case a change of its index entry or a short-lived hint was missed.
        quiet = [known for known in self._unowned.values() if known.log is not None]
        if quiet and not readings:
            oldest = min(quiet, key=lambda known: known.read_at)
            readings.append(partial(self._read, oldest, oldest.stamp))
        await finish_all(readings, READS_AT_ONCE)

    async def _discover(self, job: str, stamp: IndexStamp, *, held: bool) -> None:
        """Read a new job. A damaged one must not keep the others from their owners."""
        if job in self._damaged and time.monotonic() < self._damaged[job].not_before:
            return
        try:
            plan = read_plan(job, await asyncio.to_thread(jobs.read_spec, self.context.store, job))
        except NotFound:
            return  # The index entry is made before spec.json: the job is being created, or never was.
        except (Corrupt, InvalidInput) as error:
            self._give_up(job, error)
            return
        if plan.spec.pool != self.pool:
            log.info("job is left to others", job=job, pool=plan.spec.pool)
            self._left_alone.add(job)
            return
        known = self._unowned[job] = UnownedJob(plan, stamp)
        if not held:
            await self._read(known, stamp)

    async def _read(self, known: UnownedJob, stamp: IndexStamp) -> None:
        """Read the log of a job that nobody holds and that has this index entry; forget the job if it has finished."""
        job, job_log = known.plan.job, known.log or JobLog(self.context.store, known.plan.job)
        try:
            await asyncio.to_thread(job_log.refresh)
        except Corrupt as error:
            self._give_up(job, error)
            del self._unowned[job]
            return
        self._damaged.pop(job, None)
        known.log, known.stamp, known.read_at = job_log, stamp, time.monotonic()
        if job_log.view.finished:  # Its owner died between the terminal event and what follows here.
            await self.context.learners.free(job)
            await self.context.queue.close_job(job)
            await asyncio.to_thread(delete_prefix, self.context.store, results_prefix(job))
            await asyncio.to_thread(jobs.retire, self.context.store, job)
            del self._unowned[job]

    def _give_up(self, job: str, error: QuatrainError) -> None:
        log.error("job cannot be read and gets no owner now", job=job, error=error.message)
        self._damaged.setdefault(job, _Pause()).add()

    def _take_lost(self) -> None:
        """Own jobs that need no further slot: begun ones that have looked lost for long enough, and those that only
        have to be ended."""
        for known in self._in_order(AdmissionState.LOST, AdmissionState.UNWANTED):
            if self._may_own(known) and (
                known.admission_state is AdmissionState.UNWANTED
                or known.look(self.lease / POLLS_PER_LEASE) >= self.lease * known.leases
            ):
                self._own(known)

    async def _take_waiting(self) -> None:
        """Fill free slots by rank: half of them at a poll, so that other orchestrators get some."""
        line, reserved = self._in_order(AdmissionState.WAITING), list[UnownedJob]()
        share = -(-(self._capacity.count - self._taken()) // 2)
        started = time.monotonic()
        for known in line:
            if len(reserved) >= min(share, self.max_jobs - len(self._owned)):
                break
            await self._read(known, known.stamp)
            if known.admission_state is not AdmissionState.WAITING or not self._may_own(known):
                continue
            if await self.context.queue.hold(known.plan.job, self.context.name, owner.HOLD_TTL_SECONDS):
                reserved.append(known)
            else:
                known.hold()
        if not reserved:
            return
        surplus = max(0, await self._count_again() - self._capacity.count)
        late = time.monotonic() - started > owner.HOLD_TTL_SECONDS / 2
        kept = [] if late else reserved[: max(0, len(reserved) - surplus)]
        for known in kept:
            self._own(known)
        for known in reserved[len(kept) :]:
            await self.context.queue.release(known.plan.job, self.context.name)

    async def _count_again(self) -> int:
        """Return the slots taken now, our reservations among them."""
        others = self._others(await asyncio.to_thread(jobs.list_active, self.context.store))
        holders = await self.context.queue.holders(list(others))
        return len(self._owned.keys() | holders.keys() | {each.plan.job for each in self._in_order(*TAKES_SLOT)})

    def _taken(self) -> int:
        """Return the slots taken as of the last poll."""
        return len(self._owned) + len(self._in_order(*TAKES_SLOT))

    def _in_order(self, *admission_states: AdmissionState) -> list[UnownedJob]:
        """Return jobs in these states by rank."""
        return sorted(
            (known for known in self._unowned.values() if known.admission_state in admission_states), key=_rank
        )

    def _may_own(self, known: UnownedJob) -> bool:
        """Return whether this process may begin to own a job: it did not crash here lately, and there are not too many.

        Suspects are owned one at a time: each shows by itself whether it is the one that kills owners.
        """
        crashes = self._crashes.get(known.plan.job)
        crashed = crashes is not None and time.monotonic() < crashes.not_before
        full = len(self._owned) >= self.max_jobs
        if known.suspect and any(owned.suspect for owned in self._owned.values()):
            return False
        return not (crashed or full or self._stopping.is_set()) and known.plan.job in self._unowned

    def _own(self, known: UnownedJob) -> None:
        job = known.plan.job
        assert known.log is not None, "its state comes from its log"
        del self._unowned[job]
        work = owner.own(known.plan, self.context, known.log)
        self._owned[job] = _OwnedJob(asyncio.create_task(work, name=f"own {job}"), known.log, known.suspect)

    def _explain(self) -> None:
        """Keep for each waiting job why it waits."""
        taken = self._taken()
        line = self._in_order(AdmissionState.WAITING)
        self._reasons = {known.plan.job: self._capacity.reason(taken, before) for before, known in enumerate(line)}

    def _report(self, job: str, task: asyncio.Task[None]) -> None:
        """Log the error that a job's task ended by: such an error is a bug, and another owner may do better."""
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, QuatrainError):
            log.error("owner gave up", job=job, error=error.message)
        elif error is not None:
            log.error("owner crashed", job=job, exc_info=error)
        if error is not None and not isinstance(error, Unavailable):
            self._crashes.setdefault(job, _Pause()).add()
        else:
            self._crashes.pop(job, None)


def _rank(known: UnownedJob) -> Rank:
    return known.plan.rank
