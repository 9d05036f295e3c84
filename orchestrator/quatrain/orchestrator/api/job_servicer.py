"""JobService: translation between protobuf and the modules that know."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import grpc
from typing_extensions import override

from quatrain.errors import InvalidInput, NotFound
from quatrain.joblog import read_events
from quatrain.joblog.payloads import CancelRequested, PauseRequested, ResumeRequested
from quatrain.jobspec import parse_spec, spec_from_proto
from quatrain.orchestrator.api.downloads import stream_folder
from quatrain.orchestrator.api.lifecycle import ask_cancel, ask_pause, ask_resume
from quatrain.orchestrator.api.messages import (
    event_message,
    job_message,
    metrics_message,
    preview_message,
    rollouts_message,
    state_name,
    state_word,
)
from quatrain.orchestrator.api.reading import JobReader, JobRecord
from quatrain.orchestrator.api.retention import Request, delete_job, pin, policy_of_step, release
from quatrain.orchestrator.api.reward_report import report_message
from quatrain.orchestrator.api.watching import watch
from quatrain.orchestrator.submission.fork import Fork, fork_job
from quatrain.orchestrator.submission.reward_rehearsal import USUAL_ROWS, Rehearsal
from quatrain.orchestrator.submission.submit import Submission, Submitter
from quatrain.refs import ModelRef
from quatrain.rpc.server.access import caller
from quatrain.stages import POLICY_STAGE, STAGES
from quatrain.storage import ObjectStore
from quatrain.v1 import job_pb2, job_pb2_grpc

Context = grpc.aio.ServicerContext[Any, Any]
EVENTS_PAGE = 1000
JOBS_PAGE = 100
MAX_PAGE_SIZE = 1000
FINISHED = (job_pb2.JOB_STATE_SUCCEEDED, job_pb2.JOB_STATE_FAILED, job_pb2.JOB_STATE_CANCELLED)
STAGE_OF = {"": POLICY_STAGE} | {stage.result: stage for stage in STAGES}


@dataclass
class JobServicer(job_pb2_grpc.JobServiceServicer):
    """JobService on the wire. Methods that are not here answer UNIMPLEMENTED."""

    store: ObjectStore
    reader: JobReader
    submitter: Submitter
    poll: float
    conditions: Callable[[str], Mapping[str, str]] = lambda job: {}
    """What people should know of an unfinished job and its log does not say: by name."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Ends the watch streams."""

    @override
    async def CreateJob(self, request: job_pb2.CreateJobRequest, context: Context) -> job_pb2.CreateJobResponse:
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

    @override
    async def TestReward(self, request: job_pb2.TestRewardRequest, context: Context) -> job_pb2.TestRewardResponse:
        rehearsal = Rehearsal(
            spec=parse_spec(spec_from_proto(request.spec)),
            rows=request.rows or USUAL_ROWS,
            completions=tuple(request.completions),
            gold=request.gold,
        )
        return report_message(rehearsal, await self.submitter.rehearse(rehearsal))

    @override
    async def GetJob(self, request: job_pb2.GetJobRequest, context: Context) -> job_pb2.GetJobResponse:
        return job_pb2.GetJobResponse(job=await self._job(request.job_id))

    @override
    async def ListJobs(self, request: job_pb2.ListJobsRequest, context: Context) -> job_pb2.ListJobsResponse:
        if request.page_token and not re.fullmatch(r"[0-9]{1,12}", request.page_token):
            raise InvalidInput(f"page_token {request.page_token[:40]!r}: send what the page before gave")
        start = int(request.page_token or 0)
        size = _page_size(request.page_size, JOBS_PAGE)
        records = await self.reader.list_all()

        def page() -> job_pb2.ListJobsResponse:
            chosen = [record for record in records if not request.states or _state(record) in request.states]
            following = str(start + size) if start + size < len(chosen) else ""
            messages = [self._message(record, listed=True) for record in chosen[start : start + size]]
            return job_pb2.ListJobsResponse(jobs=messages, next_page_token=following)

        return await asyncio.to_thread(page)

    @override
    async def WatchJob(
        self, request: job_pb2.WatchJobRequest, context: Context
    ) -> AsyncIterator[job_pb2.WatchJobResponse]:
        async for message in watch(self.store, request.job_id, request.after_revision, self.poll, self.stopping):
            if message.HasField("snapshot"):
                self._explain(message.snapshot)
            yield message

    @override
    async def CancelJob(self, request: job_pb2.CancelJobRequest, context: Context) -> job_pb2.CancelJobResponse:
        intent = CancelRequested(now=request.now, reason=request.reason)
        await ask_cancel(self.reader, request.job_id, intent, caller().name)
        return job_pb2.CancelJobResponse(job=await self._job(request.job_id))

    @override
    async def PauseJob(self, request: job_pb2.PauseJobRequest, context: Context) -> job_pb2.PauseJobResponse:
        await ask_pause(self.reader, request.job_id, PauseRequested(reason=request.reason), caller().name)
        return job_pb2.PauseJobResponse(job=await self._job(request.job_id))

    @override
    async def ResumeJob(self, request: job_pb2.ResumeJobRequest, context: Context) -> job_pb2.ResumeJobResponse:
        await ask_resume(self.reader, request.job_id, ResumeRequested(reason=request.reason), caller().name)
        return job_pb2.ResumeJobResponse(job=await self._job(request.job_id))

    @override
    async def ForkJob(self, request: job_pb2.ForkJobRequest, context: Context) -> job_pb2.ForkJobResponse:
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

    @override
    async def ListEvents(self, request: job_pb2.ListEventsRequest, context: Context) -> job_pb2.ListEventsResponse:
        record = await self.reader.read(request.job_id, deleted_too=True)
        newest, first = record.log.view.revision, max(0, request.after_revision) + 1
        last = min(newest, first - 1 + _page_size(request.page_size, EVENTS_PAGE))

        def page() -> job_pb2.ListEventsResponse:
            events = read_events(self.store, record.job, first, last)
            return job_pb2.ListEventsResponse(events=map(event_message, events), revision=newest)

        return await asyncio.to_thread(page)

    @override
    async def QueryMetrics(
        self, request: job_pb2.QueryMetricsRequest, context: Context
    ) -> job_pb2.QueryMetricsResponse:
        # The evaluation before the first step is step 0, sent only when from_step is negative.
        record = await self.reader.read_steps(request.job_id)
        return await asyncio.to_thread(record.log.look, lambda view: metrics_message(view, request))

    @override
    async def ListRollouts(
        self, request: job_pb2.ListRolloutsRequest, context: Context
    ) -> job_pb2.ListRolloutsResponse:
        record = await self.reader.read_steps(request.job_id)
        wanted = request.step if request.HasField("step") else None
        step, rows = await self.reader.rows(record, wanted, evaluation=request.evaluation)
        return await asyncio.to_thread(rollouts_message, rows, step, request)

    @override
    async def ListCheckpoints(
        self, request: job_pb2.ListCheckpointsRequest, context: Context
    ) -> job_pb2.ListCheckpointsResponse:
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

    @override
    async def PinCheckpoint(
        self, request: job_pb2.PinCheckpointRequest, context: Context
    ) -> job_pb2.PinCheckpointResponse:
        change = Request(request.job_id, caller().name, request.reason)
        await pin(self.reader, self.store, change, request.step, pinned=request.pinned)
        return job_pb2.PinCheckpointResponse()

    @override
    async def DeleteCheckpoint(
        self, request: job_pb2.DeleteCheckpointRequest, context: Context
    ) -> job_pb2.DeleteCheckpointResponse:
        change = Request(request.job_id, caller().name, request.reason)
        await release(self.reader, self.store, change, request.step)
        return job_pb2.DeleteCheckpointResponse()

    @override
    async def DeleteJob(self, request: job_pb2.DeleteJobRequest, context: Context) -> job_pb2.DeleteJobResponse:
        await delete_job(self.reader, self.store, Request(request.job_id, caller().name, request.reason))
        return job_pb2.DeleteJobResponse()

    @override
    async def DownloadCheckpoint(
        self, request: job_pb2.DownloadCheckpointRequest, context: Context
    ) -> AsyncIterator[job_pb2.DownloadCheckpointResponse]:
        folder = _folder_to_download(await self.reader.read(request.job_id), request)
        try:
            async for chunk in stream_folder(self.store, folder, request.received):
                yield job_pb2.DownloadCheckpointResponse(
                    path=chunk.path, offset=chunk.offset, data=chunk.data, size=chunk.size, sha256=chunk.sha256
                )
        except NotFound:
            # This raises an error that says so if it was just released.
            _folder_to_download(await self.reader.read(request.job_id), request)
            raise

    async def _job(self, job: str) -> job_pb2.Job:
        record = await self.reader.read(job)
        return await asyncio.to_thread(self._message, record, listed=False)

    def _message(self, record: JobRecord, *, listed: bool) -> job_pb2.Job:
        """Return the message of a job, in a list without its spec and metrics. For a thread: a spec may be large."""
        message = record.log.look(lambda view: job_message(record.plan, view, with_spec=not listed))
        if listed:
            message.ClearField("metrics")
        self._explain(message)
        return message

    def _explain(self, message: job_pb2.Job) -> None:
        """Add what the log cannot say: what a job without an owner waits for, or why its owner cannot write."""
        if message.state in FINISHED:
            return
        for name, text in self.conditions(message.id).items():
            if name != "queue" or message.state == job_pb2.JOB_STATE_QUEUED:
                message.conditions[name] = text


def _state(record: JobRecord) -> int:
    return job_pb2.JobState.Value(state_name(record.log.view))


def _page_size(asked: int, usual: int) -> int:
    if asked < 0:
        raise InvalidInput(f"page_size {asked} is negative")
    return min(asked or usual, MAX_PAGE_SIZE)


def _folder_to_download(record: JobRecord, request: job_pb2.DownloadCheckpointRequest) -> ModelRef:
    view = record.log.view
    if request.what == "checkpoint":
        return policy_of_step(view, request.step if request.HasField("step") else None)
    if request.what not in STAGE_OF:
        raise InvalidInput(f"what {request.what!r}: use {', '.join(name for name in STAGE_OF if name)} or checkpoint")
    result = view.stage_results.get(STAGE_OF[request.what].name)
    if result is None:
        raise NotFound(
            f"job {record.job!r} has no finished {request.what or 'model'} (state {state_word(record.log.view)})"
        )
    return result.model
