"""The client's calls that steer a job and keep or delete its data."""

from collections.abc import Sequence

from quatrain.client.connection import CHECK_SECONDS, Connection, new_request_id
from quatrain.client.resources import Job, job_from
from quatrain.jobspec import split_overrides
from quatrain.v1 import job_pb2


class Steering:
    """Base of `AsyncClient`, which makes the connection."""

    _connection: Connection

    async def cancel(self, job: str, *, now: bool = False, reason: str = "") -> Job:
        """Ask for the end of a job: after the running step and a checkpoint, or at once with `now`. Idempotent.

        Raises NotFound.
        """
        request = job_pb2.CancelJobRequest(job_id=job, now=now, reason=reason)
        answer = await self._connection.call(self._connection.jobs.CancelJob, request)
        return job_from(answer.job)

    async def pause(self, job: str, *, reason: str = "") -> Job:
        """Ask for a pause: after the running step and a checkpoint the job gives its learner back. Idempotent.

        Raises WrongState when the job has ended or its end was asked for; NotFound.
        """
        request = job_pb2.PauseJobRequest(job_id=job, reason=reason)
        answer = await self._connection.call(self._connection.jobs.PauseJob, request)
        return job_from(answer.job)

    async def resume(self, job: str, *, reason: str = "") -> Job:
        """End a pause, or take back that one was asked for: the job goes on where it was. Idempotent.

        Raises WrongState when the job has ended; NotFound.
        """
        request = job_pb2.ResumeJobRequest(job_id=job, reason=reason)
        answer = await self._connection.call(self._connection.jobs.ResumeJob, request)
        return job_from(answer.job)

    async def fork(
        self,
        job: str,
        *,
        step: int | None = None,
        overrides: Sequence[str] = (),
        job_id: str = "",
        request_id: str = "",
    ) -> Job:
        """Start a new job from the PPO checkpoint of a step (None: the newest) and return it.

        `overrides` are `dotted.path=value`; files that they name must be uploaded before. The same `request_id` twice
        gives one job. Raises InvalidSpec or InvalidData with the fields that are wrong or cannot change; WrongState
        without any checkpoint; NotFound; AlreadyExists when `job_id` is another job's.
        """
        request = job_pb2.ForkJobRequest(
            job_id=job,
            step=step,
            overrides=split_overrides(overrides),
            request_id=request_id or new_request_id(),
            new_job_id=job_id,
        )
        answer = await self._connection.call(self._connection.jobs.ForkJob, request, timeout=CHECK_SECONDS)
        return job_from(answer.job)

    async def pin_checkpoint(self, job: str, step: int, *, pinned: bool = True, reason: str = "") -> None:
        """Keep the PPO checkpoint of a step and its policy whatever the retention says, or lift that. Idempotent.

        Raises NotFound.
        """
        request = job_pb2.PinCheckpointRequest(job_id=job, step=step, pinned=pinned, reason=reason)
        await self._connection.call(self._connection.jobs.PinCheckpoint, request)

    async def delete_checkpoint(self, job: str, step: int, *, reason: str = "") -> None:
        """Give up the PPO checkpoint of a step; its data are deleted soon after. Idempotent.

        Raises WrongState when it is pinned or a running job may need it; NotFound.
        """
        request = job_pb2.DeleteCheckpointRequest(job_id=job, step=step, reason=reason)
        await self._connection.call(self._connection.jobs.DeleteCheckpoint, request)

    async def delete(self, job: str, *, reason: str = "") -> None:
        """Delete a finished job's data; spec, events and finished models stay. Idempotent.

        Raises WrongState when the job has not ended; NotFound.
        """
        request = job_pb2.DeleteJobRequest(job_id=job, reason=reason)
        await self._connection.call(self._connection.jobs.DeleteJob, request)
