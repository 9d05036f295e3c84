"""Pins, releases and deletions over the API: of running jobs, of finished ones, and what is said of what is gone."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.kept import missing, objects_of, pin_newest, units_named, units_of
from tests.integration.orchestrator.test_api import Api, idle, serving
from tests.integration.orchestrator.world import World, deployment, run
from tests.servers.s3 import S3Server

from quatrain.digests import sha256_hex
from quatrain.errors import InvalidInput, NotFound, Unavailable, WrongState
from quatrain.joblog import jobs
from quatrain.orchestrator.api.uploads import Uploads
from quatrain.orchestrator.retention.sweep import Sweeper
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import job_pb2


async def ask(api: Api, method: str, **fields: Any) -> Any:
    return await api.call(method, getattr(job_pb2, f"{method}Request")(job_id="job-1", **fields))


async def download(api: Api, step: int) -> list[Any]:
    request = job_pb2.DownloadCheckpointRequest(job_id="job-1", what="checkpoint", step=step)
    return await api.stream("DownloadCheckpoint", request)


@asynccontextmanager
async def finished(root: Path) -> AsyncIterator[tuple[World, Api]]:
    """A job of eight steps that has ended, with the checkpoints of steps 4, 6 and 8."""
    async with deployment(root) as world, serving(world) as api:
        await world.submit(world.spec(steps=8))
        assert (await world.end_of()).state == "SUCCEEDED"
        await world.until(lambda: not world.store.list("active/"), "the job is still in the index")
        yield world, api


async def clean(world: World) -> None:
    await asyncio.to_thread(Sweeper(world.store, "sweeper", 1.0).clean_all)
    assert world.store.list("cleanup/") == []


def test_a_finished_jobs_checkpoints_are_pinned_released_and_gone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with finished(tmp_path) as (world, api):
            await ask(api, "PinCheckpoint", step=6, pinned=True, reason="good")
            await ask(api, "PinCheckpoint", step=6, pinned=True)
            listed = (await ask(api, "ListCheckpoints")).checkpoints
            assert [(each.step, each.pinned) for each in listed] == [(4, False), (6, True), (8, False)]
            with pytest.raises(WrongState, match="pin job-1 --step 6 --off"):
                await ask(api, "DeleteCheckpoint", step=6)
            for step in (4, 8, 4):
                await ask(api, "DeleteCheckpoint", step=step, reason="too large")
            with pytest.raises(NotFound, match="no PPO checkpoint of step 5; there are those of steps 6"):
                await ask(api, "PinCheckpoint", step=5, pinned=True)
            with pytest.raises(NotFound, match=r"was released on 2.* by local \(too large\)"):
                await ask(api, "PinCheckpoint", step=4, pinned=True)
            await clean(world)

            view = world.view()
            assert (view.state, [ref.step for ref in view.checkpoints]) == ("SUCCEEDED", [6])
            assert sorted(view.policies) == [0, 6, 8], "the newest policy stays"
            assert units_of(world.store, "job-1") == units_named(view)
            assert missing(world.store, view) == {}
            assert await download(api, 6)
            with pytest.raises(NotFound, match=r"policy of step 4 of job 'job-1' was released.*steps 0, 6, 8"):
                await download(api, 4)
            with pytest.raises(NotFound, match="no policy of step 99; the newest is 8"):
                await download(api, 99)
            kinds = [event.type for event in world.events()]
            assert kinds[kinds.index("job_finished") + 1 :] == [
                "checkpoint_pinned",
                "checkpoint_released",
                "checkpoint_released",
                "policies_released",
            ]

    run(scenario)


def test_a_lifted_pin_of_a_finished_job_lets_retention_decide(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            spec = world.spec(steps=40)
            spec["checkpoint"]["keep_last"] = 1
            await world.submit(spec)
            step = await pin_newest(world, api)
            await world.end_of(seconds=50.0)
            await world.until(lambda: not world.store.list("active/"), "the job is still in the index")
            await clean(world)
            assert [ref.step for ref in world.view().checkpoints] == [step, 40]
            await ask(api, "PinCheckpoint", step=step, pinned=False)
            await clean(world)

            assert [ref.step for ref in world.view().checkpoints] == [40]
            assert units_of(world.store, "job-1") == units_named(world.view())

    run(scenario)


def test_a_running_job_keeps_the_checkpoint_that_it_would_start_again_from(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=1) as world, serving(world) as api:
            await world.submit(world.spec(steps=200))
            await world.until(lambda: len(world.view().checkpoints) > 1, "two checkpoints")
            await world.schedulers[0].stop()
            *_, older, newest = (ref.step for ref in world.view().checkpoints)
            with pytest.raises(WrongState, match="would start again from the checkpoint"):
                await ask(api, "DeleteCheckpoint", step=newest)
            await ask(api, "DeleteCheckpoint", step=older)
            with pytest.raises(WrongState, match="quatrain job cancel job-1"):
                await ask(api, "DeleteJob")
            await clean(world)

            assert older not in [ref.step for ref in world.view().checkpoints]
            assert missing(world.store, world.view()) == {}
            with pytest.raises(NotFound, match=r"was released on .* \(deleted on request\)"):
                await ask(api, "PinCheckpoint", step=older, pinned=True)

    run(scenario)


def test_a_deleted_job_leaves_spec_events_and_models(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with finished(tmp_path) as (world, api):
            model = world.view().stage_results["ppo"].model.digest
            await ask(api, "DeleteJob", reason="old")
            await ask(api, "DeleteJob")
            with pytest.raises(NotFound, match=r"was deleted on 2.* by local; `quatrain job events job-1`"):
                await ask(api, "GetJob")
            for method in ("CancelJob", "ListCheckpoints", "QueryMetrics", "ListRollouts"):
                with pytest.raises(NotFound, match="was deleted"):
                    await ask(api, method)
            with pytest.raises(NotFound, match="was deleted"):
                await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1"))
            with pytest.raises(NotFound, match="was deleted"):
                await download(api, 8)
            assert list((await api.call("ListJobs", job_pb2.ListJobsRequest())).jobs) == []
            await clean(world)

            assert objects_of(world.store, "job-1") == set()
            assert world.store.stat("jobs/job-1/spec.json") is not None
            assert world.store.stat(f"models/{model}/manifest.json") is not None
            events = (await ask(api, "ListEvents")).events
            assert [event.type for event in events][-2:] == ["job_finished", "job_deleted"]
            assert (events[-1].actor, "old" in events[-1].data_json) == ("local", True)

    run(scenario)


def test_a_deletion_that_was_cut_off_is_ended_by_another_replica(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with finished(tmp_path) as (world, api):
            await clean(world)
            await ask(api, "DeleteJob")
            broken = Sweeper(world.store, "broken", 1.0)
            before = len(objects_of(world.store, "job-1"))
            store: Any = world.store
            broken.store = _DiesAfter(store, 5)
            with pytest.raises(ConnectionError):
                await asyncio.to_thread(broken.clean_all)
            assert len(objects_of(world.store, "job-1")) == before - 5
            assert jobs.list_cleanups(world.store)
            await clean(world)
            assert objects_of(world.store, "job-1") == set()

    run(scenario)


class _DiesAfter:
    """A store whose user is killed after so many deletions."""

    def __init__(self, inner: MemoryStore, deletions: int) -> None:
        self._inner = inner
        self._left = deletions

    def delete(self, key: str) -> None:
        if self._left == 0:
            raise ConnectionError("killed")
        self._left -= 1
        self._inner.delete(key)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_a_watch_ends_with_the_terminal_event_whatever_followed_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with finished(tmp_path) as (world, api):
            await ask(api, "PinCheckpoint", step=6, pinned=True)
            end = next(event.revision for event in world.events() if event.type == "job_finished")
            assert world.view().revision == end + 1
            for after, most in ((1, end - 1), (end - 1, 1), (end, 0), (end + 1, 0)):
                request = job_pb2.WatchJobRequest(job_id="job-1", after_revision=after)
                messages = await api.stream("WatchJob", request)
                assert len(messages) == most
                assert all(message.event.type != "checkpoint_pinned" for message in messages)
                assert most == 0 or messages[-1].event.type == "job_finished"
            (snapshot,) = await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1"))
            assert snapshot.snapshot.state == job_pb2.JOB_STATE_SUCCEEDED

    run(scenario)


def test_an_upload_to_a_full_disk_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        uploads = Uploads(MemoryStore(), tmp_path, 100)
        digest = sha256_hex(b"whole")
        (tmp_path / "uploads" / f"{digest}.part").symlink_to("/dev/full")
        with pytest.raises(Unavailable, match="the disk is full; free space there"):
            await uploads.take(digest, 5, _piece(b"whole"))

    run(scenario)


def test_uploads_have_a_largest_size_and_abandoned_ones_go(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (_, api):
            with pytest.raises(InvalidInput, match=r"takes at most 1048576 \(orchestrator.max_upload_bytes\)"):
                await api.upload(b"ab", size=2**20 + 1)
        uploads = Uploads(MemoryStore(), tmp_path / "scratch", 100)
        old, new = (sha256_hex(text) for text in (b"old", b"new"))
        for digest in (old, new):
            await uploads.take(digest, 50, _piece(b"half"))
        part = tmp_path / "scratch" / "uploads" / f"{old}.part"
        yesterday = part.stat().st_mtime - 25 * 3600
        os.utime(part, (yesterday, yesterday))
        uploads.remove_abandoned()
        assert [await uploads.received(digest) for digest in (old, new)] == [(False, 0), (False, 4)]
        os.utime(part.with_name(f"{new}.part"), (yesterday, yesterday))
        held = asyncio.Event()
        taking = asyncio.create_task(uploads.take(new, 50, _held(held)))
        await asyncio.sleep(0)
        uploads.remove_abandoned()
        assert (await uploads.received(new))[1] == 4, "it is being written"
        held.set()
        await taking

    run(scenario)


async def _piece(data: bytes) -> AsyncIterator[tuple[int, bytes]]:
    yield 0, data


async def _held(until: asyncio.Event) -> AsyncIterator[tuple[int, bytes]]:
    await until.wait()
    yield 4, b"more"


def test_a_jobs_data_come_and_go_on_a_real_server(tmp_path: Path, minio_server: S3Server) -> None:
    async def scenario() -> None:
        store = minio_server.new_store()
        async with deployment(tmp_path, store=store) as world, serving(world) as api:
            spec = world.spec(steps=6)
            spec["checkpoint"]["keep_last"] = 1
            await world.submit(spec)
            view = await world.end_of(seconds=50.0)
            await world.until(lambda: not store.list("active/"), "the job is still in the index")
            await clean(world)
            assert (view.state, [ref.step for ref in view.checkpoints]) == ("SUCCEEDED", [6])
            assert units_of(store, "job-1") == units_named(view)
            assert missing(store, view) == {}
            await ask(api, "DeleteJob")
            await clean(world)
            assert objects_of(store, "job-1") == set()
            assert len((await ask(api, "ListEvents")).events) == len(world.events())

    run(scenario)


def test_a_job_that_cannot_be_read_keeps_no_other_from_being_cleaned(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with finished(tmp_path) as (world, api):
            await clean(world)
            spec = world.store.get("jobs/job-1/spec.json")
            world.store.put(jobs.cleanup_key("a-ghost", 0), b"{}")
            await ask(api, "DeleteJob")
            world.store.put("jobs/job-1/spec.json", b"{")
            sweeper = Sweeper(world.store, "sweeper", 1.0)
            await asyncio.to_thread(sweeper.clean_all)
            assert objects_of(world.store, "job-1"), "nothing is guessed"
            world.store.put("jobs/job-1/spec.json", spec)
            await asyncio.to_thread(sweeper.clean_all)
            assert objects_of(world.store, "job-1") == set()
            assert list(jobs.list_cleanups(world.store)) == ["a-ghost"]

    run(scenario)
