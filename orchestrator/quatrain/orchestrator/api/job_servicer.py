"""JobService: translation between protobuf and the modules that know."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from quatrain.errors import InvalidInput, NotFound
from quatrain.joblog import read_events
from quatrain.joblog.compact import MetricRows
from quatrain.joblog.payloads import CancelRequested, PauseRequested, ResumeRequested
from quatrain.jobspec import spec_from_proto
from quatrain.orchestrator.api.downloads import stream_folder
from quatrain.orchestrator.api.lifecycle import ask_cancel, ask_pause, ask_resume
from quatrain.orchestrator.api.messages import (
    event_message,
    job_message,
    named_values,
    preview_message,
    rollout_message,
)
from quatrain.orchestrator.api.reading import JobReader, JobRecord
from quatrain.orchestrator.api.retention import Request, delete_job, pin, policy_of_step, release
from quatrain.orchestrator.api.watching import watch
from quatrain.orchestrator.submission.fork import Fork, fork_job
from quatrain.orchestrator.submission.submit import Submission, Submitter
from quatrain.refs import ModelRef
from quatrain.rpc.access import caller
from quatrain.stages import POLICY_STAGE, STAGES
from quatrain.storage import ObjectStore
from quatrain.v1 import job_pb2, job_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
EVENTS_PAGE = 1000
JOBS_PAGE = 100
MOST_ON_A_PAGE = 1000
STAGE_OF = {"": POLICY_STAGE} | {stage.result_field: stage for stage in STAGES}


@dataclass
class JobServicer(job_pb2_grpc.JobServiceServicer):
    """Methods that are not here answer UNIMPLEMENTED."""

    store: ObjectStore
    reader: JobReader
    submitter: Submitter
    poll: float
    why_waiting: Callable[[str], str] = lambda job: ""
    """Why a job without an owner waits for its turn; empty when it does not."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the watch streams."""

    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.CreateJobResponse:
        """See the proto."""
        submission = Submission(
            document=spec_from_proto(request.spec),
            owner=caller().name,
            job_id=request.job_id,
            request_id=request.request_id,
            validate_only=request.validate_only,
        )
        plan = await self.submitter.submit(submission)
        if not plan.job:
            return job_pb2.CreateJobResponse(job=preview_message(plan))
        return job_pb2.CreateJobResponse(job=await self._job(plan.job))

    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:
        """See the proto."""
        return job_pb2.GetJobResponse(job=await self._job(request.job_id))

    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        """See the proto."""
        if request.page_token and not re.fullmatch(r"[0-9]{1,12}", request.page_token):
            raise InvalidInput(f"page_token {request.page_token[:40]!r}: send what the page before gave")
        start = int(request.page_token or 0)
        size = _page_size(request.page_size, JOBS_PAGE)
        messages = [
            job_message(record.plan, record.log.view, with_spec=False) for record in await self.reader.list_all()
        ]
        if request.states:
            messages = [message for message in messages if message.state in request.states]
        for message in messages:
            message.ClearField("metrics")
            self._explain(message)
        following = str(start + size) if start + size < len(messages) else ""
        return job_pb2.ListJobsResponse(jobs=messages[start : start + size], next_page_token=following)

    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        """See the proto."""
        async for message in watch(self.store, request.job_id, request.after_revision, self.poll, self.stopping):
            if message.HasField("snapshot"):
                self._explain(message.snapshot)
            yield message

    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:
        """See the proto."""
        intent = CancelRequested(now=request.now, reason=request.reason)
        await ask_cancel(self.reader, request.job_id, intent, caller().name)
        return job_pb2.CancelJobResponse(job=await self._job(request.job_id))

    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.PauseJobResponse:
        """See the proto."""
        await ask_pause(self.reader, request.job_id, PauseRequested(reason=request.reason), caller().name)
        return job_pb2.PauseJobResponse(job=await self._job(request.job_id))

    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.ResumeJobResponse:
        """See the proto."""
        await ask_resume(self.reader, request.job_id, ResumeRequested(reason=request.reason), caller().name)
        return job_pb2.ResumeJobResponse(job=await self._job(request.job_id))

    async def ForkJob(self, request: job_pb2.ForkJobRequest, context: Context) -> job_pb2.ForkJobResponse:
        """See the proto."""
        source = await self.reader.read(request.job_id, deleted_too=True)
        fork = Fork(
            source=source.plan,
            view=source.log.view,
            step=request.step if request.HasField("step") else None,
            overrides=dict(request.overrides),
            owner=caller().name,
            job_id=request.new_job_id,
            request_id=request.request_id,
        )
        return job_pb2.ForkJobResponse(job=await self._job(await fork_job(self.submitter, fork)))

    async def ListEvents(self, request: job_pb2.ListEventsRequest, context: Context) -> job_pb2.ListEventsResponse:
        """See the proto."""
        record = await self.reader.read(request.job_id, deleted_too=True)
        newest, first = record.log.view.revision, max(0, request.after_revision) + 1
        last = min(newest, first - 1 + _page_size(request.page_size, EVENTS_PAGE))
        events = await asyncio.to_thread(read_events, self.store, record.job, first, last)
        return job_pb2.ListEventsResponse(events=[event_message(event) for event in events], revision=newest)

    async def QueryMetrics(
        self, request: job_pb2.QueryMetricsRequest, context: Context
    ) -> job_pb2.QueryMetricsResponse:
        """See the proto. The evaluation before the first step is step 0, sent only when from_step is negative."""
        record = await self.reader.read_steps(request.job_id)
        stage = request.stage or POLICY_STAGE.name
        first = request.from_step or 1
        last = request.to_step or 2**62
        rows = record.log.view.metrics.get(stage, MetricRows()).between(first, last, request.names)
        steps = [
            job_pb2.StepMetrics(stage=stage, step=row.step, attempt=row.attempt, values=named_values(row.values))
            for row in rows
        ]
        return job_pb2.QueryMetricsResponse(steps=steps)

    async def ListRollouts(
        self, request: job_pb2.ListRolloutsRequest, context: Context
    ) -> job_pb2.ListRolloutsResponse:
        """See the proto."""
        record = await self.reader.read_steps(request.job_id)
        wanted = request.step if request.HasField("step") else None
        step, rows = await self.reader.rows(record, wanted, evaluation=request.evaluation)
        if request.order_by in ("score", "-score"):
            falling = request.order_by == "-score"
            rows = [row for row in rows if row.score is not None]
            rows.sort(key=lambda row: row.score or 0.0, reverse=falling)
        elif request.order_by:
            raise InvalidInput(f"order_by {request.order_by!r}: use score, -score or nothing")
        rows = rows[: request.limit] if request.limit > 0 else rows
        return job_pb2.ListRolloutsResponse(rollouts=[rollout_message(row, step) for row in rows], step=step)

    async def ListCheckpoints(
        self, request: job_pb2.ListCheckpointsRequest, context: Context
    ) -> job_pb2.ListCheckpointsResponse:
        """See the proto."""
        view = (await self.reader.read(request.job_id)).log.view
        messages = []
        for each in view.checkpoints:
            policy = view.policies.get(each.step) if each.stage == POLICY_STAGE.name else None
            messages.append(
                job_pb2.Checkpoint(
                    stage=each.stage,
                    step=each.step,
                    attempt=each.attempt,
                    manifest=each.manifest.to_proto(),
                    revision=each.revision,
                    pinned=each.key in view.pinned,
                    policy=None if policy is None else policy.at_version(each.step).to_proto(),
                )
            )
        return job_pb2.ListCheckpointsResponse(checkpoints=messages)

    async def PinCheckpoint(
        self, request: job_pb2.PinCheckpointRequest, context: Context
    ) -> job_pb2.PinCheckpointResponse:
        """See the proto."""
        change = Request(request.job_id, caller().name, request.reason)
        await pin(self.reader, self.store, change, request.step, pinned=request.pinned)
        return job_pb2.PinCheckpointResponse()

    async def DeleteCheckpoint(
        self, request: job_pb2.DeleteCheckpointRequest, context: Context
    ) -> job_pb2.DeleteCheckpointResponse:
        """See the proto."""
        change = Request(request.job_id, caller().name, request.reason)
        await release(self.reader, self.store, change, request.step)
        return job_pb2.DeleteCheckpointResponse()

    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:
        """See the proto."""
        await delete_job(self.reader, self.store, Request(request.job_id, caller().name, request.reason))
        return job_pb2.DeleteJobResponse()

    async def DownloadCheckpoint(
        self, request: job_pb2.DownloadCheckpointRequest, context: Context
    ) -> AsyncIterator[job_pb2.DownloadCheckpointResponse]:
        """See the proto."""
        folder = _folder_to_download(await self.reader.read(request.job_id), request)
        try:
            async for chunk in stream_folder(self.store, folder, request.received):
                yield job_pb2.DownloadCheckpointResponse(
                    path=chunk.path, offset=chunk.offset, data=chunk.data, size=chunk.size, sha256=chunk.sha256
                )
        except NotFound:
            _folder_to_download(await self.reader.read(request.job_id), request)  # Says so if it was just released.
            raise

    async def _job(self, job: str) -> job_pb2.Job:
        record = await self.reader.read(job)
        message = job_message(record.plan, record.log.view, with_spec=True)
        self._explain(message)
        return message

    def _explain(self, message: job_pb2.Job) -> None:
        """Only owners write events, so what a job without one waits for is said here."""
        reason = self.why_waiting(message.id)
        if reason and message.state == job_pb2.JOB_STATE_QUEUED:
            message.conditions["queue"] = reason


def _page_size(asked: int, usual: int) -> int:
    if asked < 0:
        raise InvalidInput(f"page_size {asked} is negative")
    return min(asked or usual, MOST_ON_A_PAGE)


def _folder_to_download(record: JobRecord, request: job_pb2.DownloadCheckpointRequest) -> ModelRef:
    view = record.log.view
    if request.what == "checkpoint":
        return policy_of_step(view, request.step if request.HasField("step") else None)
    if request.what not in STAGE_OF:
        raise InvalidInput(f"what {request.what!r}: use {', '.join(name for name in STAGE_OF if name)} or checkpoint")
    result = view.stage_results.get(STAGE_OF[request.what].name)
    if result is None:
        raise NotFound(f"job {record.job!r} has no finished {request.what or 'model'} (state {view.state})")
    return result.model
