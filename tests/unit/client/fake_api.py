"""A fake JobService and ArtifactService over real gRPC: events appended by tests, faults on demand."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc.aio

from quatrain.config import ServerConfig
from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import AlreadyExists, Corrupt, InvalidData, NotFound, Unavailable
from quatrain.joblog import Event, JobView, fold
from quatrain.joblog.payloads import payload_from
from quatrain.jobspec import parse_spec, resolved_document, spec_from_proto
from quatrain.rpc.certificates import ServerTls
from quatrain.rpc.server.access import Access
from quatrain.rpc.server.server import RpcServer
from quatrain.v1 import artifact_pb2, artifact_pb2_grpc, common_pb2, job_pb2, job_pb2_grpc, spec_pb2

T = TypeVar("T")
CHUNK = 2**20


@dataclass
class FakeJob:
    spec: spec_pb2.JobSpec
    events: list[Event] = field(default_factory=list)

    def append(self, type: str, **data: Any) -> Event:
        revision = len(self.events) + 1
        event = Event(
            payload_from(type, data), "fake", 1, 1, time=f"2026-01-01T00:00:{revision % 60:02d}Z", revision=revision
        )
        self.events.append(event)
        return event

    def view(self, revision: int | None = None) -> JobView:
        return fold("x", self.events[:revision])


@dataclass
class Faults:
    """How often something still breaks; each break counts down by one."""

    watch_after: list[int] = field(default_factory=list)
    cut_watches: int = 0
    """Watches that end as if all was said."""
    silent: bool = False
    """Watches have no heartbeats."""
    before_get: Callable[[], object] = lambda: None
    upload_after_bytes: list[int] = field(default_factory=list)
    download_after_bytes: list[int] = field(default_factory=list)
    wrong_bytes: int = 0


class FakeApi(job_pb2_grpc.JobServiceServicer, artifact_pb2_grpc.ArtifactServiceServicer):
    """Runs a server on a loop in a thread of its own while it is open. State may be changed from any thread."""

    def __init__(self, tls: ServerTls | None = None, access: Access | None = None) -> None:
        self._tls = tls
        self._access = access
        self.jobs: dict[str, FakeJob] = {}
        self.rollouts: list[job_pb2.Rollout] = []
        self.folders: dict[str, dict[str, bytes]] = {}
        self.files: dict[str, bytes] = {}
        self.arrived: dict[str, bytearray] = {}
        self.models: list[artifact_pb2.NamedModel] = []
        self.patience: list[float] = []
        """Seconds that callers of ImportModel wait for an answer."""
        self.requests: dict[str, str] = {}
        self.faults = Faults()
        self.seen: list[tuple[str, Any]] = []
        self.metadata: dict[str, str] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._server: RpcServer | None = None

    def __enter__(self) -> "FakeApi":
        self._thread.start()
        self._server = self._run(self._start(0))
        self.port = self._server.ports.port
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def target(self) -> str:
        return f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        if self._server is not None:
            self._run(self._server.stop())
            self._server = None

    def restart(self) -> None:
        self._server = self._run(self._start(self.port))

    def add_job(self, name: str = "j", **sections: Any) -> FakeJob:
        job = FakeJob(spec_pb2.JobSpec(name=name, **sections))
        self.jobs[name] = job
        return job

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(20)

    async def _start(self, port: int) -> RpcServer:
        def register(server: grpc.aio.Server) -> list[str]:
            job_pb2_grpc.add_JobServiceServicer_to_server(self, server)
            artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(self, server)
            return ["quatrain.v1.JobService", "quatrain.v1.ArtifactService"]

        config = ServerConfig(port=port, shutdown_grace=0.0)
        server = RpcServer(config, "fake", register, public=True, tls=self._tls, access=self._access)
        await server.start()
        await server.serve()
        return server

    def _job(self, job_id: str) -> FakeJob:
        if job_id not in self.jobs:
            raise NotFound(f"there is no job {job_id!r}; `quatrain job list` shows the jobs there are")
        return self.jobs[job_id]

    def _note(self, request: Any, context: Any) -> None:
        self.seen.append((type(request).__name__, request))
        self.metadata = dict(context.invocation_metadata())

    # -- JobService

    async def CreateJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        spec = parse_spec(spec_from_proto(request.spec))
        for uri in [spec.ppo.prompts.uri, *([spec.sft.data.uri] if spec.sft else [])]:
            if uri.removeprefix("sha256:") not in self.files:
                raise InvalidData(f"ppo.prompts: {uri} was never uploaded")
        resolved = canonical_json(resolved_document(spec)).decode()
        if request.validate_only:
            message = job_pb2.Job(name=spec.name, resolved_spec_json=resolved, warnings=["3 rows were dropped"])
            return job_pb2.CreateJobResponse(job=message)
        job_id = request.job_id or self.requests.get(request.request_id) or f"{spec.name}-{len(self.jobs) + 1}"
        if job_id in self.jobs and self.requests.get(request.request_id) != job_id:
            raise AlreadyExists(f"the job id {job_id!r} is taken; choose another one")
        if job_id not in self.jobs:
            self.requests[request.request_id] = job_id
            self.jobs[job_id] = FakeJob(request.spec)
        return job_pb2.CreateJobResponse(job=job_message(job_id, self.jobs[job_id]))

    async def GetJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self.faults.before_get()
        return job_pb2.GetJobResponse(job=job_message(request.job_id, self._job(request.job_id)))

    async def ListJobs(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        messages = [job_message(job_id, job) for job_id, job in sorted(self.jobs.items(), reverse=True)]
        messages = [each for each in messages if not request.states or each.state in request.states]
        start = int(request.page_token or 0)
        page = messages[start : start + 2]  # pages of two, however many were asked for
        more = str(start + 2) if len(messages) > start + 2 else ""
        return job_pb2.ListJobsResponse(jobs=page, next_page_token=more)

    async def WatchJob(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request, context)
        job, revision, sent = self._job(request.job_id), request.after_revision, 0
        limit = self.faults.watch_after.pop(0) if self.faults.watch_after else None
        if revision == 0:
            revision = len(job.events)
            yield job_pb2.WatchJobResponse(snapshot=job_message(request.job_id, job), revision=revision)
        while True:
            for event in job.events[revision:]:
                if sent == limit:
                    raise Unavailable("the line broke")
                yield event_message(request.job_id, job, event)
                sent, revision = sent + 1, event.revision
            if sent == limit:
                raise Unavailable("the line broke")
            if job.view().finished:
                return
            if self.faults.cut_watches:
                self.faults.cut_watches -= 1
                return
            if not self.faults.silent:
                yield job_pb2.WatchJobResponse(heartbeat=job_pb2.WatchHeartbeat(), revision=revision)
            await asyncio.sleep(0.02)

    async def CancelJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id).append("cancel_requested", now=request.now, reason=request.reason)
        return job_pb2.CancelJobResponse(job=job_message(request.job_id, self._job(request.job_id)))

    async def PauseJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id).append("pause_requested", reason=request.reason)
        return job_pb2.PauseJobResponse(job=job_message(request.job_id, self._job(request.job_id)))

    async def ResumeJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id).append("resume_requested", reason=request.reason)
        return job_pb2.ResumeJobResponse(job=job_message(request.job_id, self._job(request.job_id)))

    async def ForkJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id)
        self.add_job(request.new_job_id)
        message = job_message(request.new_job_id, self._job(request.new_job_id))
        message.forked_from.CopyFrom(job_pb2.ForkedFrom(job_id=request.job_id, step=request.step))
        return job_pb2.ForkJobResponse(job=message)

    async def ListEvents(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        job = self._job(request.job_id)
        page = job.events[request.after_revision : request.after_revision + 3]
        messages = [event_message(request.job_id, job, event).event for event in page]
        return job_pb2.ListEventsResponse(events=messages, revision=len(job.events))

    async def QueryMetrics(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        stage = request.stage or "ppo"
        answer = job_pb2.QueryMetricsResponse()
        for row in self._job(request.job_id).view().metrics.get(stage, []):
            step = answer.steps.add(stage=stage, step=row.step, attempt=row.attempt)
            for name, value in row.values.items():
                if not request.names or name in request.names:
                    step.values.add(name=name, value=value)
        return answer

    async def ListRollouts(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id)
        rows = [row for row in self.rollouts if not request.HasField("step") or row.step == request.step]
        if request.order_by:
            rows = sorted(rows, key=lambda row: row.score, reverse=request.order_by == "-score")
        return job_pb2.ListRolloutsResponse(rollouts=rows[: request.limit or None], step=request.step)

    async def ListCheckpoints(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        answer = job_pb2.ListCheckpointsResponse()
        for each in self._job(request.job_id).view().checkpoints:
            answer.checkpoints.add(
                stage=each.stage, step=each.step, attempt=1, manifest=each.manifest.to_proto(), revision=each.revision
            )
        return answer

    async def PinCheckpoint(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        key = self._checkpoint_key(request.job_id, request.step)
        self._job(request.job_id).append("checkpoint_pinned", key=key, pinned=request.pinned, reason=request.reason)
        return job_pb2.PinCheckpointResponse()

    async def DeleteCheckpoint(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        key = self._checkpoint_key(request.job_id, request.step)
        self._job(request.job_id).append("checkpoint_released", key=key, reason=request.reason)
        return job_pb2.DeleteCheckpointResponse()

    def _checkpoint_key(self, job_id: str, step: int) -> str:
        for ref in self._job(job_id).view().checkpoints:
            if ref.step == step:
                return str(ref.key)
        raise NotFound(f"job {job_id!r} has no PPO checkpoint of step {step}")

    async def DeleteJob(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self._job(request.job_id).append("job_deleted", reason=request.reason)
        return job_pb2.DeleteJobResponse()

    async def DownloadCheckpoint(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request, context)
        self._job(request.job_id)
        async for chunk in self._chunks(
            request, f"{request.job_id}/{request.what}", job_pb2.DownloadCheckpointResponse
        ):
            yield chunk

    # -- ArtifactService

    async def GetUpload(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        received = len(self.arrived.get(request.sha256, b""))
        return artifact_pb2.GetUploadResponse(complete=request.sha256 in self.files, received=received)

    async def Upload(self, request_iterator: Any, context: Any) -> Any:
        limit = self.faults.upload_after_bytes.pop(0) if self.faults.upload_after_bytes else None
        digest, size, arrived = "", 0, bytearray()
        async for message in request_iterator:
            self._note(message, context)
            if message.sha256:
                digest, size = message.sha256, message.size
                arrived = self.arrived.setdefault(digest, bytearray())
            assert len(message.data) <= CHUNK
            assert message.offset == len(arrived)
            arrived += message.data
            if limit is not None and len(arrived) >= limit:
                raise Unavailable("the line broke")
        if len(arrived) != size or sha256_hex(bytes(arrived)) != digest:
            self.arrived.pop(digest, None)
            raise Corrupt("the bytes do not match the digest")
        self.files[digest] = bytes(arrived)
        return artifact_pb2.UploadResponse(object=common_pb2.ObjectRef(key=f"data/sha256/{digest}", sha256=digest))

    async def ImportModel(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        self.patience.append(context.time_remaining())
        content = {file.path: self.files[file.sha256] for file in request.files}
        if request.uri:
            content = {"uri": request.uri.encode()}
        digest = sha256_hex(json.dumps(sorted(content)).encode())
        self.folders[f"sha256:{digest}"] = content
        ref = common_pb2.ModelRef(uri=f"sha256:{digest}", digest=digest)
        number = 0
        if request.name:
            number = sum(model.name == request.name for model in self.models) + 1
            self.models.append(artifact_pb2.NamedModel(name=request.name, number=number, model=ref))
        return artifact_pb2.ImportModelResponse(model=ref, number=number)

    async def ListModels(self, request: Any, context: Any) -> Any:
        self._note(request, context)
        return artifact_pb2.ListModelsResponse(models=self.models)

    async def Download(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self._note(request, context)
        async for chunk in self._chunks(request, request.uri, artifact_pb2.DownloadResponse):
            yield chunk

    async def _chunks(self, request: Any, name: str, message: Any) -> AsyncIterator[Any]:
        if name not in self.folders:
            raise NotFound(f"there is no {name}")
        limit = self.faults.download_after_bytes.pop(0) if self.faults.download_after_bytes else None
        wrong = self.faults.wrong_bytes > 0
        self.faults.wrong_bytes -= wrong
        sent = 0
        for path, content in self.folders[name].items():
            digest = sha256_hex(content)
            start = min(request.received.get(path, 0), len(content))
            for offset in range(start, max(len(content), start + 1), CHUNK):
                if limit is not None and sent >= limit:
                    raise Unavailable("the line broke")
                data = content[offset : offset + CHUNK]
                data = bytes(len(data)) if wrong else data
                sent += len(data)
                yield message(path=path, offset=offset, data=data, size=len(content), sha256=digest)


def job_message(job_id: str, job: FakeJob, revision: int | None = None) -> job_pb2.Job:
    view = job.view(revision)
    message = job_pb2.Job(
        id=job_id,
        name=job.spec.name,
        state=f"JOB_STATE_{view.state}",
        stage=view.stage,
        step=view.step,
        total_steps=view.total_steps,
        attempt=view.attempt,
        revision=view.revision,
        conditions=view.conditions,
        create_time=view.create_time,
        update_time=view.update_time,
    )
    if view.error:
        message.error.CopyFrom(job_pb2.JobError(reason=view.error.reason, message=view.error.message))
    if revision is None:
        message.spec.CopyFrom(job.spec)
    for name, value in view.latest_metrics.values.items() if view.latest_metrics else ():
        message.metrics.add(name=name, value=value)
    return message


def event_message(job_id: str, job: FakeJob, event: Event) -> job_pb2.WatchJobResponse:
    message = job_pb2.JobEvent(
        revision=event.revision,
        type=event.type,
        data_json=canonical_json(event.data).decode(),
        time=event.time,
        actor=event.actor,
    )
    return job_pb2.WatchJobResponse(
        event=message, job=job_message(job_id, job, event.revision), revision=event.revision
    )
