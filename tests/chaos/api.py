"""What the driver asks of the job API: to create, to watch, to look; patient with whatever is down."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.json_format import MessageToDict
from tests.chaos.checker import Connection, Created

from quatrain.v1 import artifact_pb2_grpc, job_pb2, job_pb2_grpc, spec_pb2

CALL_SECONDS = 20.0
PAUSE = 0.1
TERMINAL = ("SUCCEEDED", "FAILED", "CANCELLED")


class NoAnswer(Exception):
    """The API did not answer in time, or refused for good."""


class GivenUp(Exception):
    """Somebody has asked the driver to end: the run counts for nothing."""


class Api:
    """The job API of several orchestrators: a call that one does not answer goes to the next."""

    def __init__(self, addresses: Sequence[str]) -> None:
        self._channels = [grpc.insecure_channel(address) for address in addresses]
        self.stubs = [job_pb2_grpc.JobServiceStub(channel) for channel in self._channels]
        self.artifacts = [artifact_pb2_grpc.ArtifactServiceStub(channel) for channel in self._channels]
        self._next = 0
        self.give_up = threading.Event()
        """Set: whoever waits for something of the API, or for the end of a job, raises GivenUp."""

    def check(self) -> None:
        """Raises GivenUp when the driver ends."""
        if self.give_up.is_set():
            raise GivenUp

    def close(self) -> None:
        """Ends all calls."""
        for channel in self._channels:
            channel.close()

    def rotate(self) -> job_pb2_grpc.JobServiceStub:
        """The next orchestrator's stub."""
        self._next += 1
        return self.stubs[self._next % len(self.stubs)]

    def rotate_artifacts(self) -> artifact_pb2_grpc.ArtifactServiceStub:
        """The next orchestrator's stub for uploads."""
        self._next += 1
        return self.artifacts[self._next % len(self.artifacts)]

    def retry_while_unavailable(
        self, call: Callable[[Any], Any], deadline: float, next_stub: Callable[[], Any] | None = None
    ) -> Any:
        """Answer of an idempotent call. Raises NoAnswer at the monotonic deadline, or when it was refused."""
        while True:
            self.check()
            try:
                return call((next_stub or self.rotate)())
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


Make = Callable[[job_pb2_grpc.JobServiceStub], Any]
"""A call that makes a job; its answer has it."""


def creation(spec: spec_pb2.JobSpec, job: str) -> Make:
    """CreateJob."""
    request = job_pb2.CreateJobRequest(job_id=job, request_id=f"request of {job}", spec=spec)
    return lambda stub: stub.CreateJob(request, timeout=CALL_SECONDS)


def forking(source: str, step: int, job: str) -> Make:
    """ForkJob, without any change."""
    request = job_pb2.ForkJobRequest(job_id=source, step=step, new_job_id=job, request_id=f"request of {job}")
    return lambda stub: stub.ForkJob(request, timeout=CALL_SECONDS)


@dataclass
class Submission:
    """A job is asked for until an answer comes; every answer is kept. `lost` is called after each call without one."""

    api: Api
    make: Make
    job: str
    answers: list[Created] = field(default_factory=list)
    lost: Callable[[], None] = lambda: None

    def run(self, deadline: float, times: int = 1) -> None:
        """Until `times` answers have come. Raises NoAnswer."""
        request_id = f"request of {self.job}"

        def create(stub: job_pb2_grpc.JobServiceStub) -> Any:
            try:
                return self.make(stub)
            except grpc.RpcError:
                self.answers.append(Created(request_id, ""))
                self.lost()
                raise

        for _ in range(times):
            answer = self.api.retry_while_unavailable(create, deadline)
            self.answers.append(Created(request_id, answer.job.id))


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

    def await_end(self, deadline: float) -> None:
        """Until the job has ended, or the monotonic deadline has come; then no more connections. Raises GivenUp."""
        try:
            while not self.ended and time.monotonic() < deadline:
                self._api.check()
                time.sleep(0.02)
        finally:
            self.stop()

    def stop(self) -> None:
        """No more connections; the running one may end by itself for a moment."""
        self._ending.set()
        self._thread.join(3.0)
        if self._thread.is_alive() and self._call is not None:
            self._call.cancel()
            self._thread.join(3.0)
