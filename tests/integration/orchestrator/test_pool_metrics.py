"""What Prometheus is told about the queue, the jobs and the learners of a pool."""

from pathlib import Path

from tests.integration.orchestrator.faults import FlakyQueue, soon
from tests.integration.orchestrator.world import deployment, run

from quatrain.orchestrator.ownership.admission import AdmissionState
from quatrain.orchestrator.ownership.pool_metrics import PoolMetrics
from quatrain.telemetry.metrics import REGISTRY


def told(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(f"quatrain_{name}", {"pool": "default", **labels})


def test_tasks_jobs_and_learners_are_counted_and_what_is_not_known_is_not_told(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0, learners=3, job_slots=2) as world:
            world.learner_addresses.append("127.0.0.1:1")
            queue = world.queue = FlakyQueue()
            scheduler = world.start_scheduler()
            tells = PoolMetrics(scheduler)
            for job in ("a", "b", "c"):
                await world.submit(world.spec(), job)
            await world.until(lambda: len(queue.added) == 4, "the tasks of two jobs", 30.0)
            await queue.lease("default", "somebody", count=1, block=0)
            await soon(lambda: scheduler.admission_states()[AdmissionState.WAITING] == 1, "one job waits", 30.0)
            await tells.count()
            assert (told("tasks", state="waiting"), told("tasks", state="leased")) == (3, 1)
            assert (told("jobs", state="held"), told("jobs", state="waiting")) == (2, 1)
            assert [told("learners", state=state) for state in ("free", "busy", "silent")] == [1, 2, 1]
            assert told("job_slots") == 2

            scheduler.context.learners._targets = (f"targets-file:{tmp_path}/missing",)
            queue.refusals["backlog"] = 1
            await tells.count()
            assert (told("tasks", state="waiting"), told("learners", state="free")) == (None, None)
            assert told("jobs", state="held") == 2

    run(scenario)


def test_a_job_counts_once_when_it_ends(tmp_path: Path) -> None:
    def ended() -> float:
        return told("jobs_finished_total", state="SUCCEEDED") or 0.0

    async def scenario() -> None:
        before = ended()
        async with deployment(tmp_path, schedulers=2) as world:
            await world.submit(world.spec())
            assert (await world.end_of(seconds=30.0)).state == "SUCCEEDED"
            assert ended() == before + 1

    run(scenario)
