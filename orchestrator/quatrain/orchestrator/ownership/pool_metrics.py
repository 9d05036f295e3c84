"""The metrics of a pool. Every orchestrator counts the whole pool, so all of them report the same numbers."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from prometheus_client import Gauge

from quatrain.errors import QuatrainError
from quatrain.orchestrator.ownership.admission import AdmissionState
from quatrain.orchestrator.ownership.scheduler import Scheduler
from quatrain.telemetry import metrics
from quatrain.telemetry.logging import get_logger

log = get_logger(__name__)

COUNT_SECONDS = 10.0

TASKS = metrics.gauge("tasks", "Rollout tasks that wait for a worker, or are leased by one", ("pool", "state"))
JOBS = metrics.gauge("jobs", "Unfinished jobs by how they stand to the slots of the pool", ("pool", "state"))
LEARNERS = metrics.gauge("learners", "Learners that are free, busy with a job, or silent", ("pool", "state"))
JOB_SLOTS = metrics.gauge("job_slots", "Jobs whose policies fit into generation at once; 0: not known", ("pool",))


@dataclass(frozen=True)
class PoolMetrics:
    """The gauges of a pool: its jobs, learners and tasks, counted every 10 s."""

    scheduler: Scheduler

    async def run(self) -> None:
        """Count until cancelled."""
        while True:
            await self.count()
            await asyncio.sleep(COUNT_SECONDS)

    async def count(self) -> None:
        """Set the gauges. What cannot be counted now is not reported: an old number would look like a new one."""
        context, pool = self.scheduler.context, self.scheduler.pool
        admission_states = self.scheduler.admission_states()
        _set(JOBS, pool, {each.name.lower(): admission_states[each] for each in AdmissionState})
        JOB_SLOTS.labels(pool).set(self.scheduler.capacity.job_slots)
        try:
            learners = await context.learners.states()
            _set(LEARNERS, pool, {state: learners[state] for state in ("free", "busy", "silent")})
        except QuatrainError as error:
            log.info("learners not counted", error=error.message)
            LEARNERS.clear()
        try:
            backlog = await context.queue.backlog(pool)
            _set(TASKS, pool, {"waiting": backlog.waiting, "leased": backlog.leased})
        except QuatrainError as error:
            log.info("tasks not counted", error=error.message)
            TASKS.clear()


def _set(gauge: Gauge, pool: str, values: Mapping[str, int]) -> None:
    for label, value in values.items():
        gauge.labels(pool, label).set(value)
