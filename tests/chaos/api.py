"""What the driver asks of the job API: to create, to watch, to look; patient with whatever is down."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tests.chaos.checker import Connection, Created

from quatrain.v1 import job_pb2, job_pb2_grpc, spec_pb2

CALL_SECONDS = 20.0
PAUSE = 0.1
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


class NoAnswer(Exception):
    """The API did not answer in time, or refused for good."""


class Api:
    """The job API of several orchestrators: a call that one does not answer goes to the next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [grpc.insecure_channel(address) for address in addresses]
        self.stubs = [job_pb2_grpc.JobServiceStub(channel) for channel in self._channels]
        self._next = 0

    def close(self) -> None:
        """Ends all calls."""
        for channel in self._channels:
            channel.close()

    def rotate(self) -> job_pb2_grpc.JobServiceStub:
        """The next orchestrator's stub."""
        self._next += 1
        return self.stubs[self._next % len(self.stubs)]

    def patiently(self, call: Callable[[job_pb2_grpc.JobServiceStub], Any], deadline: float) -> Any:
        """Answer of an idempotent call. Raises NoAnswer at the monotonic deadline, or when it was refused."""
        while True:
            try:
                return call(self.rotate())
            except grpc.RpcError as error:
                if not _passing(error) or time.monotonic() > deadline:
                    raise NoAnswer(str(error)) from error
            time.sleep(PAUSE)

    def state(self, job: str) -> str:
        """State of a job now, or empty when nobody answers."""
        try:
            answer = self.rotate().GetJob(job_pb2.GetJobRequest(job_id=job), timeout=5.0)
        except grpc.RpcError:
            return ""
        return job_pb2.JobState.Name(answer.job.state).removeprefix("JOB_STATE_")


def _passing(error: grpc.RpcError) -> bool:
    return error.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        grpc.StatusCode.CANCELLED,
        grpc.StatusCode.UNKNOWN,
    )


@dataclass
class Submission:
    """CreateJob, sent again until an answer comes, by a thread of its own; every answer is kept."""

    api: Api
    spec: spec_pb2.JobSpec
    job: str
    request_id: str
    answers: list[Created] = field(default_factory=list)
    error: str = ""

    def run(self, deadline: float, times: int = 1) -> None:
        """Until `times` answers have come. Raises NoAnswer."""
        request = job_pb2.CreateJobRequest(job_id=self.job, request_id=self.request_id, spec=self.spec)

        def create(stub: job_pb2_grpc.JobServiceStub) -> job_pb2.CreateJobResponse:
            try:
                answer: job_pb2.CreateJobResponse = stub.CreateJob(request, timeout=CALL_SECONDS)
            except grpc.RpcError:
                self.answers.append(Created(self.request_id, ""))
                raise
            return answer

        for _ in range(times):
            answer = self.api.patiently(create, deadline)
            self.answers.append(Created(self.request_id, answer.job.id))


class Watcher:
    """Follows a job on any orchestrator, from where the last connection broke, and keeps every message."""

    def __init__(self, api: Api, job: str) -> None:
        self._api = api
        self._job = job
        self._ending = threading.Event()
        self._call: Any = None
        self.connections: list[Connection] = []
        self.revision = 0
        self.state = ""
        self.ended = 0.0
        self._thread = threading.Thread(target=self._run, name="watcher", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ending.is_set() and not self.ended:
            asked, clean = self.revision, False
            messages: list[dict[str, Any]] = []
            try:
                request = job_pb2.WatchJobRequest(job_id=self._job, after_revision=asked)
                self._call = self._api.rotate().WatchJob(request, timeout=300.0)
                for message in self._call:
                    messages.append(MessageToDict(message, preserving_proto_field_name=True))
                    self.revision = max(self.revision, message.revision)
                    self._note(message)
                clean = True
            except grpc.RpcError:
                pass
            if messages or clean:
                self.connections.append(Connection(asked, messages, clean))
            time.sleep(PAUSE)

    def _note(self, message: job_pb2.WatchJobResponse) -> None:
        kind = message.WhichOneof("kind")
        if kind not in ("snapshot", "event"):
            return
        job = message.snapshot if kind == "snapshot" else message.job
        self.state = job_pb2.JobState.Name(job.state).removeprefix("JOB_STATE_")
        if self.state in TERMINAL and not self.ended:
            self.ended = time.time()

    def stop(self) -> None:
        """No more connections; the running one may end by itself for a moment."""
        self._ending.set()
        self._thread.join(3.0)
        if self._thread.is_alive() and self._call is not None:
            self._call.cancel()
            self._thread.join(3.0)
