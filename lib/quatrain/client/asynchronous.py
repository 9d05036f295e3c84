"""The async client. Every method raises `quatrain.errors`; Unavailable means that the API cannot be reached."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from quatrain.client.connection import CHECK_SECONDS, Connection, Credentials, new_request_id
from quatrain.client.download_record import Target
from quatrain.client.downloads import download_folder
from quatrain.client.following import PATIENCE, follow, retry_while_unavailable
from quatrain.client.resources import (
    Artifact,
    Checkpoint,
    Event,
    Job,
    NamedModel,
    Rollout,
    Update,
    checkpoint_from,
    event_from,
    job_from,
    metrics_from,
    named_model_from,
    rollout_from,
)
from quatrain.client.reward_tests import RewardTests
from quatrain.client.steering import Steering
from quatrain.client.submission import read_draft, send_files
from quatrain.client.uploads import import_from, upload_file, upload_model
from quatrain.errors import DeadlineExpired, InvalidInput
from quatrain.jobspec import spec_to_proto
from quatrain.local.home import Endpoint, allows_plaintext, find_certificates, find_endpoint, find_token
from quatrain.rpc.certificates import CertificateFiles
from quatrain.v1 import artifact_pb2, job_pb2

PAGE = 1000
# `list` is a method below, so the built-in one has to be named before.
Jobs = list[Job]
Rows = list[dict[str, Any]]
Rollouts = list[Rollout]
Events = list[Event]
Checkpoints = list[Checkpoint]
NamedModels = list[NamedModel]
Paths = list[Path]


class WaitTimedOut(DeadlineExpired):
    """The end of the time given to `wait` while the job was not finished; the job goes on."""

    reason = "WAIT_TIMED_OUT"


class AsyncClient(Steering, RewardTests):
    """A client of the Quatrain API. It belongs to the event loop of its first call; close it, or use `async with`."""

    def __init__(
        self,
        target: str | None = None,
        *,
        token: str | None = None,
        certificates: CertificateFiles | None = None,
        insecure: bool | None = None,
    ) -> None:
        """Take the target and what is shown to it; the first call connects.

        `target` is host:port for plaintext, https://host:port for TLS; without one `$QUATRAIN_ENDPOINT` is used, else
        the local stack. Without a target the token is found with the endpoint (`$QUATRAIN_TOKEN`, token file); a given
        token goes to the target and nowhere else. `certificates` are as in `$QUATRAIN_CA`, `$QUATRAIN_CERT` and
        `$QUATRAIN_KEY`. `insecure` (`$QUATRAIN_INSECURE`) sends the token in plaintext to other machines, too.
        Raises Unavailable when there is nothing to connect to, InvalidInput when others could read the token.
        """
        endpoint = find_endpoint() if target is None else Endpoint(target)
        credentials = Credentials(
            token=find_token(endpoint) if target is None and token is None else token,
            certificates=certificates or find_certificates(endpoint),
            insecure=allows_plaintext() if insecure is None else insecure,
        )
        self._connection = Connection(endpoint.api, credentials)

    @property
    def target(self) -> str:
        """The address of the API."""
        return self._connection.target

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End the connection and every call on it."""
        await self._connection.close()

    async def submit(
        self,
        spec: Path | str | Mapping[str, object],
        *,
        overrides: Sequence[str] = (),
        job_id: str = "",
        request_id: str = "",
        validate_only: bool = False,
    ) -> Job:
        """Create a job from a spec file (Path), a YAML text (str) or a document, and return it.

        Local data, models and reward code that it names are uploaded first. `overrides` are `dotted.path=value`. The
        same `request_id` twice gives one job; with `validate_only` everything is checked and no job is made: the
        returned job has no id, and its `resolved_spec` is what would run.
        Raises InvalidSpec or InvalidData with the wrong fields; AlreadyExists when `job_id` is another job's.
        """
        draft = await asyncio.to_thread(read_draft, spec, overrides)

        async def send_model(folder: Path) -> NamedModel:
            return await upload_model(self._connection, folder, "")

        ready = await send_files(draft, self.upload, send_model)
        request = job_pb2.CreateJobRequest(
            job_id=job_id,
            request_id=request_id or new_request_id(),
            validate_only=validate_only,
            spec=spec_to_proto(ready),
        )
        answer = await self._connection.call(self._connection.jobs.CreateJob, request, timeout=CHECK_SECONDS)
        return job_from(answer.job)

    async def get(self, job: str) -> Job:
        """Return one job. Raises NotFound."""
        answer = await self._connection.call(self._connection.jobs.GetJob, job_pb2.GetJobRequest(job_id=job))
        return job_from(answer.job)

    async def list(self, *, states: Sequence[str] = (), limit: int | None = None) -> Jobs:
        """Return the jobs, newest first, without their specs; with `states` (such as RUNNING) only jobs in these."""
        request = job_pb2.ListJobsRequest(
            page_size=min(limit or PAGE, PAGE),
            states=[_state_name(state) for state in states],
        )
        jobs: Jobs = []
        while True:
            answer = await self._connection.call(self._connection.jobs.ListJobs, request)
            jobs.extend(job_from(each) for each in answer.jobs)
            if not answer.next_page_token or (limit is not None and len(jobs) >= limit):
                return jobs[:limit]
            request.page_token = answer.next_page_token

    async def watch(
        self, job: str, *, after_revision: int = 0, patience: float = PATIENCE
    ) -> AsyncGenerator[Update, None]:
        """Yield a snapshot (without `after_revision`), then every change as it happens; end after the terminal one.

        It reconnects by itself while the server is unavailable for less than `patience` seconds. Leaving the loop does
        not affect the job. Raises NotFound, Unavailable.
        """
        async with contextlib.aclosing(follow(self._connection, job, after_revision, patience)) as updates:
            async for update in updates:
                yield update

    async def wait(self, job: str, *, timeout: float | None = None) -> Job:
        """Wait until the job has finished, however it ended, and return it, even if the server restarts meanwhile.

        Raises WaitTimedOut after `timeout` seconds (the job goes on), NotFound, Unavailable.
        """
        try:
            async with asyncio.timeout(timeout):
                async with contextlib.aclosing(self.watch(job)) as updates:
                    async for _ in updates:
                        pass
        except TimeoutError as error:
            raise WaitTimedOut(f"job {job} has not finished within {timeout:g} s; it goes on") from error
        return await retry_while_unavailable(lambda: self.get(job))

    async def metrics(
        self, job: str, *, stage: str = "ppo", names: Sequence[str] = (), from_step: int = 0, to_step: int = 0
    ) -> Rows:
        """Return the metrics of a stage, one flat dict a step: stage, step, attempt and each metric.

        None stands for a metric that is not defined at the step. `to_step` 0 means to the end. Raises NotFound.
        """
        request = job_pb2.QueryMetricsRequest(
            job_id=job, stage=stage, names=names, from_step=from_step, to_step=to_step
        )
        answer = await self._connection.call(self._connection.jobs.QueryMetrics, request)
        return [
            {"stage": each.stage, "step": each.step, "attempt": each.attempt, **metrics_from(each.values)}
            for each in answer.steps
        ]

    async def rollouts(
        self, job: str, *, step: int | None = None, evaluation: bool = False, limit: int = 0, order_by: str = ""
    ) -> Rollouts:
        """Return the samples of a sealed step (None: the newest) or of an evaluation.

        `order_by` is `score` (worst first), `-score` (best first) or empty for the order of the batch; `limit` 0 means
        all. Raises NotFound.
        """
        request = job_pb2.ListRolloutsRequest(
            job_id=job, step=step, evaluation=evaluation, limit=limit, order_by=order_by
        )
        answer = await self._connection.call(self._connection.jobs.ListRollouts, request)
        return [rollout_from(each) for each in answer.rollouts]

    async def events(self, job: str, *, after_revision: int = 0) -> Events:
        """Return the events of a job's log so far, oldest first. Raises NotFound."""
        request = job_pb2.ListEventsRequest(job_id=job, after_revision=after_revision, page_size=PAGE)
        events: Events = []
        while True:
            answer = await self._connection.call(self._connection.jobs.ListEvents, request)
            events.extend(event_from(each) for each in answer.events)
            if not answer.events or events[-1].revision >= answer.revision:
                return events
            request.after_revision = events[-1].revision

    async def checkpoints(self, job: str) -> Checkpoints:
        """Return the committed checkpoints in the order of their commits. Raises NotFound."""
        request = job_pb2.ListCheckpointsRequest(job_id=job)
        answer = await self._connection.call(self._connection.jobs.ListCheckpoints, request)
        return [checkpoint_from(each) for each in answer.checkpoints]

    async def download(
        self, job: str, to: Path, *, what: str = "model", step: int | None = None, force: bool = False
    ) -> Paths:
        """Download a Hugging Face folder of a job to `to` and return its files: checked, and resumed if it broke off.

        `what` is `model` (the finished policy), `reward_model`, `sft_model`, or `checkpoint` with its `step`.
        A folder that holds other files is refused, unless `force` says that files of the same names may be replaced.
        Raises NotFound; InvalidInput for such a folder and for one that cannot be written; WrongState when the model is
        not there yet; Corrupt when a file does not match its digest.
        """

        def source(received: dict[str, int]) -> AsyncGenerator[Any, None]:
            request = job_pb2.DownloadCheckpointRequest(job_id=job, what=what, step=step, received=received)
            return self._connection.stream(self._connection.jobs.DownloadCheckpoint, request)

        named = f"{what} of job {job}" + (f" at step {step}" if step is not None else "")
        return await download_folder(source, Target(to, named, force=force))

    async def upload(self, path: Path) -> Artifact:
        """Upload a data or code file by content; specs can name its uri. A file that is there is not sent again.

        Raises InvalidData when the file cannot be read.
        """
        return await upload_file(self._connection, path)

    async def import_model(self, folder: Path | str, *, name: str = "") -> NamedModel:
        """Upload a Hugging Face folder (safetensors only) and make it a model, under a name if one is given.

        `s3://BUCKET/PREFIX` and `hf://ORG/NAME` are read by the server. Raises InvalidData for any other folder.
        """
        if isinstance(folder, str) and "://" in folder:
            return await import_from(self._connection, folder, name)
        return await upload_model(self._connection, Path(folder), name)

    async def list_models(self) -> NamedModels:
        """Return the named models, by name and number."""
        answer = await self._connection.call(self._connection.artifacts.ListModels, artifact_pb2.ListModelsRequest())
        return [named_model_from(each) for each in answer.models]

    async def download_model(self, uri: str, to: Path, *, force: bool = False) -> Paths:
        """Download a model (`sha256:DIGEST` or `models://NAME[@N]`) to `to`, as `download` does.

        Raises NotFound, InvalidInput, Corrupt.
        """

        def source(received: dict[str, int]) -> AsyncGenerator[Any, None]:
            request = artifact_pb2.DownloadRequest(uri=uri, received=received)
            return self._connection.stream(self._connection.artifacts.Download, request)

        return await download_folder(source, Target(to, f"model {uri}", force=force))


def _state_name(state: str) -> str:
    # A job that is being checked has no id yet, so none is ever listed as VALIDATING.
    named = (name.removeprefix("JOB_STATE_") for name in job_pb2.JobState.keys()[1:])
    names = [name for name in named if name != "VALIDATING"]
    if state not in names:
        raise InvalidInput(f"{state!r} is no state of a job; the states are {', '.join(names)}")
    return f"JOB_STATE_{state}"
