"""Forks and retention: a fork lives without its source, and one whose source goes during the copy is refused."""

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.integration.orchestrator.kept import Watching, missing, units_named, units_of
from tests.integration.orchestrator.test_api import Api, serving
from tests.integration.orchestrator.world import World, deployment, run

from quatrain.errors import NotFound, Unavailable
from quatrain.joblog import Event, JobLog, jobs
from quatrain.joblog.payloads import payload_from
from quatrain.orchestrator.retention import sweep
from quatrain.orchestrator.retention.sweep import Sweeper
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import job_pb2


class InterruptedStore(MemoryStore):
    """Does something else first when a file of a checkpoint is read for the first time."""

    def __init__(self) -> None:
        super().__init__()
        self.first: Callable[[], None] | None = None

    def get_file(self, key: str, path: Path) -> None:
        if self.first is not None and "job-1/ppo/checkpoints/" in key:
            work, self.first = self.first, None
            work()
        super().get_file(key, path)


class DyingStore(MemoryStore):
    """Ends a copy for a fork before its manifest, as if its orchestrator had died there."""

    dies = False

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.dies and key.startswith("jobs/fork/ppo/checkpoints/"):
            raise Unavailable("died")
        return super().put_if_absent(key, data)


async def source(world: World) -> None:
    await world.submit(world.spec(steps=8))
    assert (await world.end_of()).state == "SUCCEEDED"
    await world.until(lambda: not world.store.list("active/"), "the job is still in the index")


async def fork(api: Api, step: int, **overrides: str) -> None:
    request = job_pb2.ForkJobRequest(job_id="job-1", step=step, new_job_id="fork", overrides=overrides)
    await api.call("ForkJob", request)


def test_a_fork_lives_without_its_source(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await source(world)
            sweeper = Sweeper(world.store, "sweeper", 0.05)
            await fork(api, 6, **{"ppo.steps": "14", "checkpoint.keep_last": "1"})
            await api.call("DeleteJob", job_pb2.DeleteJobRequest(job_id="job-1"))
            world.keep(sweeper.run())
            watcher = world.keep(Watching(world.store, "fork").run())
            view = await world.end_of("fork")
            await world.until(lambda: not world.store.list("active/"), "the fork is still in the index")
            await world.until(lambda: not world.store.list("cleanup/"), "not all is cleaned")

            assert view.state == "SUCCEEDED", view.error
            assert not watcher.done(), watcher
            assert units_of(world.store, "job-1") == set()
            assert [ref.step for ref in view.checkpoints] == [14]
            assert "jobs/fork/ppo/checkpoints/6-0/manifest.json" in view.released
            assert units_of(world.store, "fork") == units_named(view)
            assert missing(world.store, view) == {}

    run(scenario)


def test_a_fork_that_waits_for_its_owner_keeps_its_copy(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await source(world)
            await world.schedulers[0].stop()
            await fork(api, 6, **{"ppo.steps": "10"})
            world.store.put(jobs.cleanup_key("fork", 0), b"{}")
            await asyncio.to_thread(Sweeper(world.store, "sweeper", 1.0).clean_all)
            assert units_of(world.store, "fork") == {"jobs/fork/ppo/checkpoints/6-0"}
            world.start_scheduler("heir")
            assert (await world.end_of("fork")).state == "SUCCEEDED"

    run(scenario)


@pytest.mark.parametrize("whole", [False, True])
def test_a_source_that_goes_during_the_copy_makes_no_fork(tmp_path: Path, whole: bool) -> None:
    store = InterruptedStore()

    def go() -> None:
        log = JobLog(store, "job-1")
        log.refresh()
        ref = next(each for each in log.view.checkpoints if each.step == 6)
        data = {"stage": "ppo", "step": 6, "key": ref.key, "reason": "chance"}
        log.append(
            Event(payload_from("job_deleted", {}), "ann")
            if whole
            else Event(payload_from("checkpoint_released", data), "ann")
        )
        store.put(jobs.cleanup_key("job-1", log.view.revision), b"{}")
        Sweeper(store, "sweeper", 1.0).clean_all()

    async def scenario() -> None:
        async with deployment(tmp_path, store=store) as world, serving(world) as api:
            await source(world)
            store.first = go
            store.put("jobs/fork/ppo/checkpoints/6-0/of-an-earlier-try", b"")
            with pytest.raises(NotFound, match="checkpoint 6 of job 'job-1' was deleted meanwhile"):
                await fork(api, 6, **{"ppo.steps": "10"})
            assert jobs.list_jobs(store) == ["job-1"]
            assert store.list("active/") == []
            assert store.list("jobs/fork/") == []

    run(scenario)


def test_what_was_copied_for_a_fork_that_never_came_to_be_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = DyingStore()

    async def scenario() -> None:
        async with deployment(tmp_path, store=store) as world, serving(world) as api:
            await source(world)
            sweeper = Sweeper(store, "sweeper", 1.0)

            def clean() -> bool:
                sweeper.clean_all()
                return not store.list("cleanup/")

            await world.until(clean, "the source's own entries")
            store.dies = True
            with pytest.raises(Unavailable, match="died"):
                await fork(api, 6, **{"ppo.steps": "10"})
            copied = store.list("jobs/fork/")
            assert copied, "the copy had begun"
            for _ in range(3):
                sweeper.clean_all()
            assert store.list("jobs/fork/") == copied, "its maker may still live"

            monkeypatch.setattr(sweep, "COPY_SECONDS", 0.0)
            store.put("jobs/fork/ppo/checkpoints/6-0/one-more", b"")
            sweeper.clean_all()
            assert len(store.list("jobs/fork/")) > len(copied), "something new has come"
            sweeper.clean_all()
            assert store.list("jobs/fork/") == store.list("cleanup/") == []

            store.dies = False
            await fork(api, 6, **{"ppo.steps": "10"})
            sweeper.clean_all()
            assert store.list("cleanup/") == []
            assert (await world.end_of("fork")).state == "SUCCEEDED"

    run(scenario)
