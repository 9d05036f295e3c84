"""The pool of learners: finding a free one, opening it for a job, and the calls of an open session."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from typing import Any

import grpc

from quatrain.errors import InvalidInput, LearnerBusy, QuatrainError, RunFailed, Unavailable
from quatrain.rpc.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import result_of
from quatrain.rpc.targets import resolve_targets
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

log = get_logger("learners")

SERVICE = "quatrain.v1.LearnerService"
STATUS_TIMEOUT_SECONDS = 5.0
OPEN_TIMEOUT_SECONDS = 600.0
LOST_AFTER_SECONDS = 30.0
SIGN_OF_LIFE_SECONDS = 5.0


class LearnerLost(QuatrainError):
    """The learner of a job is gone or no longer ours: the job goes on with a new attempt."""

    reason = "LEARNER_LOST"


class LearnerSession:
    """One open learner. Methods raise LearnerLost, or what the computation itself raised (RunFailed, InvalidInput)."""

    def __init__(self, address: str, learner_id: str, token: common_pb2.OwnerToken, channel: grpc.aio.Channel) -> None:
        self.address = address
        self.learner_id = learner_id
        self.token = token
        self.step = 0
        self._channel = channel
        self._stub = learner_pb2_grpc.LearnerServiceStub(channel)
        self._alive = asyncio.create_task(self._signs_of_life())

    async def train(self, step: int, batch: common_pb2.ObjectRef | None) -> learner_pb2.StepResult:
        """Trains one step."""
        request = learner_pb2.StepRequest(token=self.token, step=step, batch=batch)
        with self._losses(f"step {step}"):
            response: learner_pb2.StepResponse = await self._result(self._stub.Step(request))
        self.step = step
        return response.result

    async def publish(self, step: int) -> common_pb2.ModelRef:
        """Writes the current weights to the store."""
        request = learner_pb2.PublishRequest(token=self.token, step=step)
        with self._losses(f"publishing step {step}"):
            response: learner_pb2.PublishResponse = await self._result(self._stub.Publish(request))
        return response.model

    async def save(self, step: int) -> common_pb2.ObjectRef:
        """Writes all state to the store; the manifest names it."""
        request = learner_pb2.SaveRequest(token=self.token, step=step)
        with self._losses(f"saving step {step}"):
            response: learner_pb2.SaveResponse = await self._result(self._stub.Save(request))
        return response.manifest

    async def export(self, extra_files: Mapping[str, bytes]) -> learner_pb2.ExportedModel:
        """Writes a Hugging Face folder to the store."""
        request = learner_pb2.ExportRequest(token=self.token, extra_files=extra_files)
        with self._losses("export"):
            response: learner_pb2.ExportResponse = await self._result(self._stub.Export(request))
        return response.exported

    async def logprobs(
        self, request: learner_pb2.ComputePolicyLogprobsRequest
    ) -> learner_pb2.ComputePolicyLogprobsResponse:
        """Logprobs of given tokens under the policy in training."""
        with self._losses("logprobs"):
            response: learner_pb2.ComputePolicyLogprobsResponse = await self._stub.ComputePolicyLogprobs(
                request, timeout=120.0
            )
        return response

    async def close(self) -> None:
        """Frees the learner if it can be reached, and ends the signs of life."""
        self._alive.cancel()
        try:
            await self._stub.Close(learner_pb2.CloseRequest(token=self.token), timeout=STATUS_TIMEOUT_SECONDS)
        except grpc.aio.AioRpcError as error:
            log.info("learner not closed", address=self.address, error=error.details())
        await self._channel.close(None)

    async def abandon(self) -> None:
        """Ends the signs of life without a word to the learner."""
        self._alive.cancel()
        await self._channel.close(None)

    async def _result(self, stream: Any) -> Any:
        return await result_of(stream, LOST_AFTER_SECONDS, service="learner", target=self.address)

    async def _signs_of_life(self) -> None:
        """A learner frees itself when its owner is silent; between steps these calls are what it hears."""
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
            try:
                await self._stub.GetStatus(
                    learner_pb2.GetStatusRequest(token=self.token), timeout=STATUS_TIMEOUT_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                log.info("sign of life not heard", address=self.address, error=error.details())

    @contextlib.contextmanager
    def _losses(self, doing: str) -> Iterator[None]:
        try:
            yield
        except grpc.aio.AioRpcError as error:
            raise self._loss(doing, from_rpc_error(error, service="learner", target=self.address)) from error
        except QuatrainError as error:
            raise self._loss(doing, error) from error

    def _loss(self, doing: str, error: QuatrainError) -> QuatrainError:
        if isinstance(error, RunFailed | InvalidInput):
            return error
        return LearnerLost(f"learner {self.address} lost at {doing}: {error.message}")


class LearnerPool:
    """All learners that the targets name; the targets are read again at every opening, so learners may come and go."""

    def __init__(self, targets: Sequence[str]) -> None:
        self._targets = tuple(targets)

    async def open(self, request: learner_pb2.OpenRequest) -> LearnerSession:
        """Opens the first learner that takes the job: one that holds it already, else a free one.

        Raises LearnerBusy when all are busy, Unavailable when none answers, and what Open itself refuses.
        """
        addresses = await resolve_targets(self._targets)
        found = await asyncio.gather(*(self._status(address) for address in addresses))
        reachable = [(address, status) for address, status in zip(addresses, found, strict=True) if status is not None]
        if not reachable:
            raise Unavailable(f"no learner answers at {', '.join(self._targets)}: start one, or look at its log")
        mine = [a for a, s in reachable if s.HasField("token") and s.token.job == request.token.job]
        free = [a for a, s in reachable if not s.HasField("token")]
        for address in [*mine, *free]:
            try:
                return await self._open_at(address, request)
            except (LearnerBusy, Unavailable) as error:
                log.info("learner not taken", address=address, error=error.message)
        raise LearnerBusy(f"all {len(reachable)} learners are busy")

    async def _open_at(self, address: str, request: learner_pb2.OpenRequest) -> LearnerSession:
        channel = open_channel(address, service=SERVICE)
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        try:
            response = await _call(address, lambda: stub.Open(request, timeout=OPEN_TIMEOUT_SECONDS))
        except QuatrainError:
            await channel.close(None)
            raise
        session = LearnerSession(address, response.status.learner_id, request.token, channel)
        session.step = response.status.step
        return session

    async def _status(self, address: str) -> learner_pb2.GetStatusResponse | None:
        channel = open_channel(address, service=SERVICE)
        try:
            stub = learner_pb2_grpc.LearnerServiceStub(channel)
            request = learner_pb2.GetStatusRequest()
            status: learner_pb2.GetStatusResponse = await _call(
                address, lambda: stub.GetStatus(request, timeout=STATUS_TIMEOUT_SECONDS)
            )
            return status
        except QuatrainError as error:
            log.info("learner does not answer", address=address, error=error.message)
            return None
        finally:
            await channel.close(None)


async def _call(address: str, call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service="learner", target=address) from error
