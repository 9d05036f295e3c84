"""JobService and ArtifactService over gRPC: pages, watching, filters, downloads that go on, hostile input."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.integration.orchestrator.world import World, deployment, put_rows, run, write_model

from quatrain.digests import sha256_hex
from quatrain.errors import (
    AlreadyExists,
    Corrupt,
    DeadlineExpired,
    InvalidInput,
    NotBuilt,
    NotFound,
    QuatrainError,
    Unavailable,
)
from quatrain.joblog import jobs
from quatrain.jobspec import parse_spec, spec_to_proto
from quatrain.orchestrator.api.artifact_servicer import ArtifactServicer
from quatrain.orchestrator.api.job_servicer import JobServicer
from quatrain.orchestrator.api.reading import JobReader
from quatrain.orchestrator.api.uploads import Uploads
from quatrain.rpc.errors import from_rpc_error
from quatrain.v1 import artifact_pb2, artifact_pb2_grpc, job_pb2, job_pb2_grpc


class Api:
    """Both services; errors come as ours."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self._jobs: Any = job_pb2_grpc.JobServiceStub(channel)
        self._artifacts: Any = artifact_pb2_grpc.ArtifactServiceStub(channel)

    async def call(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._jobs, method)(request, timeout=20.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="jobs", target="here") from error

    async def artifact(self, method: str, request: Any) -> Any:
        try:
            return await getattr(self._artifacts, method)(request, timeout=20.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="artifacts", target="here") from error

    async def stream(self, method: str, request: Any, most: int = 10_000) -> list[Any]:
        stub = self._jobs if hasattr(self._jobs, method) else self._artifacts
        messages: list[Any] = []
        try:
            async for message in getattr(stub, method)(request, timeout=20.0):
                messages.append(message)
                if len(messages) == most:
                    break
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="api", target="here") from error
        return messages

    async def upload(self, data: bytes, chunk: int = 4, size: int | None = None, digest: str = "") -> Any:
        async def requests() -> AsyncIterator[artifact_pb2.UploadRequest]:
            for offset in range(0, max(1, len(data)), chunk):
                yield artifact_pb2.UploadRequest(
                    sha256=digest or sha256_hex(data),
                    size=len(data) if size is None else size,
                    offset=offset,
                    data=data[offset : offset + chunk],
                )

        return await self.artifact("Upload", requests())


def api_of(world: World, stopping: asyncio.Event | None = None) -> Callable[[grpc.aio.Server], None]:
    """Adds both services to a server."""
    scratch = world.root / "api"
    submitter = world.submitter()
    conditions = world.schedulers[0].conditions if world.schedulers else lambda job: {}
    reader, stopping = JobReader(world.store), stopping or asyncio.Event()
    servicer = JobServicer(world.store, reader, submitter, 0.05, conditions, stopping)
    artifacts = ArtifactServicer(world.store, Uploads(world.store, scratch, 2**20), submitter.sources, scratch)

    def add(server: grpc.aio.Server) -> None:
        job_pb2_grpc.add_JobServiceServicer_to_server(servicer, server)
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(artifacts, server)

    return add


@contextlib.asynccontextmanager
async def serving(world: World) -> AsyncIterator[Api]:
    address = await world.serve("JobService", api_of(world), public=True)
    async with grpc.aio.insecure_channel(address) as channel:
        yield Api(channel)


@contextlib.asynccontextmanager
async def idle(root: Path) -> AsyncIterator[tuple[World, Api]]:
    """An API without an owner behind it."""
    async with deployment(root, learners=0, workers=0, schedulers=0) as world, serving(world) as api:
        yield world, api


def create(world: World, **fields: Any) -> job_pb2.CreateJobRequest:
    return job_pb2.CreateJobRequest(spec=spec_to_proto(parse_spec(world.spec())), **fields)


def names(values: Iterable[Any]) -> set[str]:
    return {value.name for value in values}


def test_a_job_seen_from_every_side(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            spec = world.spec(eval_prompts=put_rows(world.store, [{"prompt": "ac"}, {"prompt": "bd"}]), eval_every=2)
            request = job_pb2.CreateJobRequest(spec=spec_to_proto(parse_spec(spec)), job_id="job-1")
            created = (await api.call("CreateJob", request)).job
            assert (created.id, job_pb2.JobState.Name(created.state)) == ("job-1", "JOB_STATE_QUEUED")
            messages = await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1"))
            check_watch(messages)
            await check_resumed_watches(api, messages)
            await check_reads(api)

    run(scenario)


def check_watch(messages: list[Any]) -> None:
    assert messages[0].snapshot.id == "job-1"
    revisions = [message.revision for message in messages]
    assert revisions == sorted(revisions)
    events = [message.event for message in messages if message.HasField("event")]
    assert [event.revision for event in events] == list(range(events[0].revision, events[-1].revision + 1))
    assert events[-1].type == "job_finished"
    assert messages[-1].job.state == job_pb2.JOB_STATE_SUCCEEDED


async def check_resumed_watches(api: Api, messages: list[Any]) -> None:
    last = messages[-1].revision
    resumed = await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1", after_revision=last - 3))
    assert [message.revision for message in resumed] == [last - 2, last - 1, last]
    snapshot = await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1"))
    assert [message.snapshot.state for message in snapshot] == [job_pb2.JOB_STATE_SUCCEEDED]


async def check_reads(api: Api) -> None:
    job = (await api.call("GetJob", job_pb2.GetJobRequest(job_id="job-1"))).job
    assert json.loads(job.resolved_spec_json)["ppo"]["steps"] == 3
    metrics = job_pb2.QueryMetricsRequest
    everything = (await api.call("QueryMetrics", metrics(job_id="job-1"))).steps
    assert [step.step for step in everything] == [1, 2, 3]
    some = (await api.call("QueryMetrics", metrics(job_id="job-1", from_step=2, to_step=2, names=["kl/coef"]))).steps
    assert [(step.step, names(step.values)) for step in some] == [(2, {"kl/coef"})]
    with pytest.raises(InvalidInput, match="no stage 'rewrad': the stages are sft, reward, ppo"):
        await api.call("QueryMetrics", metrics(job_id="job-1", stage="rewrad"))
    with pytest.raises(InvalidInput, match="from_step 5 comes after to_step 2"):
        await api.call("QueryMetrics", metrics(job_id="job-1", from_step=5, to_step=2))
    with_first = (await api.call("QueryMetrics", metrics(job_id="job-1", from_step=-1))).steps
    assert [step.step for step in with_first] == [0, 1, 2, 3]
    assert "eval/score_mean" in names(with_first[0].values)
    ask = job_pb2.ListRolloutsRequest
    falling = (await api.call("ListRollouts", ask(job_id="job-1", order_by="-score", limit=3))).rollouts
    scores = [rollout.score for rollout in falling]
    assert scores == sorted(scores, reverse=True)
    assert len(scores) == 3
    evaluated = await api.call("ListRollouts", ask(job_id="job-1", step=0, evaluation=True))
    assert (evaluated.step, len(evaluated.rollouts)) == (0, 2)
    with pytest.raises(NotFound, match="steps 1 to 3"):
        await api.call("ListRollouts", ask(job_id="job-1", step=9))
    with pytest.raises(InvalidInput, match="order_by"):
        await api.call("ListRollouts", ask(job_id="job-1", order_by="length"))
    checkpoints = (await api.call("ListCheckpoints", job_pb2.ListCheckpointsRequest(job_id="job-1"))).checkpoints
    assert [(checkpoint.stage, checkpoint.step) for checkpoint in checkpoints] == [("ppo", 2), ("ppo", 3)]
    await check_downloads(api)
    await api.call("CancelJob", job_pb2.CancelJobRequest(job_id="job-1", now=True))  # It has ended: nothing happens.
    again = (await api.call("GetJob", job_pb2.GetJobRequest(job_id="job-1"))).job
    assert again.state == job_pb2.JOB_STATE_SUCCEEDED


async def check_downloads(api: Api) -> None:
    def ask(**fields: Any) -> job_pb2.DownloadCheckpointRequest:
        return job_pb2.DownloadCheckpointRequest(job_id="job-1", **fields)

    chunks = await api.stream("DownloadCheckpoint", ask(what="model"))
    files: dict[str, bytes] = {}
    for chunk in chunks:
        assert chunk.offset == len(files.get(chunk.path, b""))
        files[chunk.path] = files.get(chunk.path, b"") + chunk.data
    assert {"model.safetensors", "tokenizer.json", "README.md", "SHA256SUMS"} <= set(files)
    assert all(sha256_hex(files[chunk.path]) == chunk.sha256 for chunk in chunks)
    received = {path: len(data) for path, data in files.items()} | {"README.md": 10, "SHA256SUMS": -5, "other": 3}
    rest = {chunk.path: chunk for chunk in await api.stream("DownloadCheckpoint", ask(what="model", received=received))}
    assert (rest["README.md"].offset, rest["README.md"].data) == (10, files["README.md"][10:])
    assert rest["SHA256SUMS"].data == files["SHA256SUMS"]
    assert rest["model.safetensors"].data == b""
    assert await api.stream("DownloadCheckpoint", ask(what="checkpoint", step=2))
    for fields, error in (
        ({"what": "checkpoint", "step": 77}, NotFound),
        ({"what": "reward_model"}, NotFound),
        ({"what": "../secrets"}, InvalidInput),
    ):
        with pytest.raises(error):
            await api.stream("DownloadCheckpoint", ask(**fields))


def test_jobs_come_in_pages_by_state_and_damaged_ones_hide_nobody(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            for number in range(5):
                await api.call("CreateJob", create(world, job_id=f"job-{number}"))
            jobs.create_job(world.store, "damaged", {})
            world.store.put("jobs/damaged/spec.json", b"[]")
            found: list[str] = []
            token = ""
            for _ in range(3):
                answer = await api.call("ListJobs", job_pb2.ListJobsRequest(page_size=2, page_token=token))
                found += [job.id for job in answer.jobs]
                token = answer.next_page_token
            assert (found, token) == ([f"job-{number}" for number in (4, 3, 2, 1, 0)], "")
            queued = await api.call("ListJobs", job_pb2.ListJobsRequest(states=[job_pb2.JOB_STATE_QUEUED]))
            running = await api.call("ListJobs", job_pb2.ListJobsRequest(states=[job_pb2.JOB_STATE_RUNNING]))
            assert (len(queued.jobs), len(running.jobs)) == (5, 0)
            for fields in ({"page_size": -1}, {"page_token": "x"}, {"page_token": "²"}):
                with pytest.raises(InvalidInput, match="page"):
                    await api.call("ListJobs", job_pb2.ListJobsRequest(**fields))

    run(scenario)


def test_events_pages_cancel_twice_and_heartbeats(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            await api.call("CreateJob", create(world, job_id="job-1"))
            for now in (False, False, True):
                answer = await api.call("CancelJob", job_pb2.CancelJobRequest(job_id="job-1", now=now, reason="why"))
            assert answer.job.state == job_pb2.JOB_STATE_QUEUED
            page = await api.call("ListEvents", job_pb2.ListEventsRequest(job_id="job-1", page_size=1))
            assert ([event.revision for event in page.events], page.revision) == ([1], 2)
            rest = await api.call("ListEvents", job_pb2.ListEventsRequest(job_id="job-1", after_revision=1))
            assert [json.loads(event.data_json)["now"] for event in rest.events] == [True]
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("quatrain.orchestrator.api.watching.HEARTBEAT_SECONDS", 0.1)
                request = job_pb2.WatchJobRequest(job_id="job-1", after_revision=2)
                beats = await api.stream("WatchJob", request, most=2)
            assert all(message.HasField("heartbeat") for message in beats)

    run(scenario)


def test_a_replica_that_stops_ends_its_watches(tmp_path: Path) -> None:
    async def scenario() -> None:
        stopping = asyncio.Event()
        async with deployment(tmp_path, learners=0, workers=0, schedulers=0) as world:
            address = await world.serve("JobService", api_of(world, stopping), public=True)
            async with grpc.aio.insecure_channel(address) as channel:
                api = Api(channel)
                await api.call("CreateJob", create(world, job_id="job-1"))
                watching = asyncio.create_task(api.stream("WatchJob", job_pb2.WatchJobRequest(job_id="job-1")))
                await asyncio.sleep(0.3)
                assert not watching.done()
                stopping.set()
                with pytest.raises(Unavailable, match="stopping"):
                    await watching

    run(scenario)


def test_same_request_one_job_and_what_is_missing_says_so(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            request = create(world, request_id="again")
            made = [(await api.call("CreateJob", request)).job.id for _ in range(2)]
            assert made[0] == made[1]
            with pytest.raises(AlreadyExists):
                await api.call("CreateJob", create(world, job_id=made[0], request_id="other"))
            for method in ("ExportCheckpoint",):
                with pytest.raises(NotBuilt):
                    await api.call(method, getattr(job_pb2, f"{method}Request")())
            for method in ("TailLogs", "Chat"):
                with pytest.raises(NotBuilt):
                    await api.stream(method, getattr(job_pb2, f"{method}Request")())
            for job in ("", "nobody", "..", "../x", "a/b", "/etc", "a\0b", "x" * 5000):
                with pytest.raises((NotFound, InvalidInput)):
                    await api.call("GetJob", job_pb2.GetJobRequest(job_id=job))
                with pytest.raises((NotFound, InvalidInput)):
                    await api.stream("WatchJob", job_pb2.WatchJobRequest(job_id=job))

    run(scenario)


def test_uploads_go_on_where_they_stopped_and_are_checked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (_, api):
            data, digest = b"0123456789", sha256_hex(b"0123456789")
            with pytest.raises(InvalidInput, match="after 8 of 10 bytes"):
                await api.upload(data[:8], digest=digest, size=10)
            state = await api.artifact("GetUpload", artifact_pb2.GetUploadRequest(sha256=digest))
            assert (state.complete, state.received) == (False, 8)
            with pytest.raises(InvalidInput, match="chunk at 0, but 8"):
                await api.upload(data)
            rest = artifact_pb2.UploadRequest(sha256=digest, size=10, offset=8, data=data[8:])
            assert (await api.artifact("Upload", once(rest))).object.size == 10
            assert (await api.upload(data)).object.key == f"data/sha256/{digest}", "it is there already"
            assert (await api.upload(b"")).object.size == 0
            assert await asyncio.gather(*(api.upload(b"at the same time") for _ in range(3)))
            download = artifact_pb2.DownloadRequest(uri=f"data:{digest}", received={"": 4})
            assert [chunk.data for chunk in await api.stream("Download", download)] == [data[4:]]

    run(scenario)


async def once(*requests: Any) -> AsyncIterator[Any]:
    for request in requests:
        yield request


def test_hostile_uploads_are_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            Request = artifact_pb2.UploadRequest
            digest = sha256_hex(b"abc")
            cases: list[tuple[type[QuatrainError], list[Any]]] = [
                (InvalidInput, []),
                (InvalidInput, [Request(sha256="../../etc/passwd", size=3, data=b"abc")]),
                (InvalidInput, [Request(sha256=digest.upper(), size=3, data=b"abc")]),
                (InvalidInput, [Request(sha256=digest + "\n", size=3, data=b"abc")]),
                (InvalidInput, [Request(sha256=digest, size=-1)]),
                (InvalidInput, [Request(sha256=digest, size=2, data=b"abc")]),
                (InvalidInput, [Request(sha256=digest, size=2**62, offset=2**61, data=b"abc")]),
                (InvalidInput, [Request(sha256=digest, size=2**62, data=bytes(2**20 + 1))]),
                (Corrupt, [Request(sha256=digest, size=3, data=b"abd")]),
            ]
            for error, messages in cases:
                with pytest.raises(error):
                    await api.artifact("Upload", once(*messages))
            assert world.store.stat(f"data/sha256/{digest}") is None
            assert (await api.upload(b"abc")).object.size == 3, "nothing of the wrong one stays"

            async def stalled() -> AsyncIterator[Any]:
                yield Request(sha256=sha256_hex(b"slow"), size=4, data=b"s")
                await asyncio.sleep(10.0)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("quatrain.orchestrator.api.uploads.CHUNK_SECONDS", 0.1)
                with pytest.raises(DeadlineExpired, match="no chunk"):
                    await api.artifact("Upload", stalled())
            for uri in ("", "data:../x", "data:" + "0" * 64, "sha256:../..", "models://nobody", "file:///etc/passwd"):
                with pytest.raises((NotFound, InvalidInput)):
                    await api.stream("Download", artifact_pb2.DownloadRequest(uri=uri))

    run(scenario)


def test_models_are_imported_by_content_named_and_checked(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with idle(tmp_path) as (world, api):
            folder = write_model(tmp_path / "model")
            files = []
            for path in sorted(folder.iterdir()):
                await api.upload(path.read_bytes(), chunk=100_000)
                files.append(artifact_pb2.ModelFile(path=path.name, sha256=sha256_hex(path.read_bytes())))

            async def load(files: list[Any], name: str = "") -> Any:
                return await api.artifact("ImportModel", artifact_pb2.ImportModelRequest(files=files, name=name))

            made = [await load(files, "mine") for _ in range(2)]
            assert [answer.number for answer in made] == [1, 1]
            assert made[0].model.uri == world.model_uri
            listed = (await api.artifact("ListModels", artifact_pb2.ListModelsRequest())).models
            assert [(entry.name, entry.number) for entry in listed] == [("mine", 1)]
            assert await api.stream("Download", artifact_pb2.DownloadRequest(uri="models://mine@1"))
            config = files[0].sha256
            hostile = ["", ".", "./", "/etc/x", "../x", "a/../../x", "a\\b", "a\0b", "a\nb", "x" * 300, "manifest.json"]
            for name in hostile:
                with pytest.raises(InvalidInput):
                    await load([*files, artifact_pb2.ModelFile(path=name, sha256=config)])
            for extra in ("config.json", "config.json/deeper"):
                with pytest.raises(InvalidInput):
                    await load([*files, artifact_pb2.ModelFile(path=extra, sha256=config)])
            for wrong in ([], files[1:], [*files, artifact_pb2.ModelFile(path="x", sha256="../y")]):
                with pytest.raises(InvalidInput):
                    await load(wrong)
            for name in ("Upper", "../up", "a/b", "a..b"):
                with pytest.raises(InvalidInput, match="model name"):
                    await load(files, name)

    run(scenario)
