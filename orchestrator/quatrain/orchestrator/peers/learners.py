"""The pool of learners: finding a free one, opening it for a job, and the calls of an open session."""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from typing import Any, TypeVar

import grpc

from quatrain.errors import (
    DeadlineExpired,
    InvalidInput,
    LearnerBusy,
    OutOfMemory,
    Overloaded,
    QuatrainError,
    RunFailed,
    Unavailable,
)
from quatrain.orchestrator.plan import Rank
from quatrain.refs import ModelRef, ObjectRef
from quatrain.rpc.certificates import ChannelTls
from quatrain.rpc.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import result_of
from quatrain.rpc.targets import resolve_targets
from quatrain.stages import Stage, stage_of_proto
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

log = get_logger("learners")

SERVICE = "quatrain.v1.LearnerService"
STATUS_TIMEOUT_SECONDS = 5.0
OPEN_TIMEOUT_SECONDS = 24 * 3600.0
"""Only what a call must have: a large model over a slow store takes its time. The signs of life are the bound, and the
learner's own reads of the store, each of which ends when nothing more comes."""
LOGPROBS_TIMEOUT_SECONDS = 120.0
LOST_AFTER_SECONDS = 30.0
SIGN_OF_LIFE_SECONDS = 5.0
LIFE_LOOK_SECONDS = 1.0

T = TypeVar("T")


class LearnerLost(QuatrainError):
    """The learner of a job is gone or no longer ours: the job goes on with a new attempt."""

    reason = "LEARNER_LOST"


class LearnerSession:
    """One learner that serves, or is asked to serve, a token.

    Methods raise LearnerLost, what the computation itself raised (RunFailed, InvalidInput), and Unavailable, Overloaded
    or DeadlineExpired while the learner is still ours but cannot answer now (its store may be away): ask again, a
    repeated call attaches to what runs or gives what was computed.
    """

    def __init__(self, address: str, token: common_pb2.OwnerToken, tls: ChannelTls | None = None) -> None:
        self.address = address
        self.token = token
        self.learner_id = ""
        self.stage: Stage | None = None
        self.step = 0
        self._channel = open_channel(address, service=SERVICE, tls=tls)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)
        self._heard = time.monotonic()
        self._alive = asyncio.create_task(self._signs_of_life())

    async def open(self, request: learner_pb2.OpenRequest) -> None:
        """Opens a stage, which may take long; the signs of life keep the learner ours, and tell that it lives.

        Raises LearnerBusy, Unavailable, LearnerLost when it has too little memory, and what Open itself refuses.
        """
        self.stage = stage_of_proto(request.stage)
        try:
            response: learner_pb2.OpenResponse = await self._while_it_lives(
                _call(self.address, lambda: self._stub.Open(request, timeout=OPEN_TIMEOUT_SECONDS))
            )
        except OutOfMemory as error:
            raise self._loss("opening", error) from error
        self.learner_id = response.status.learner_id
        self.step = response.status.step

    async def train(self, step: int, batch: ObjectRef | None) -> learner_pb2.StepResult:
        """Trains one step."""
        message = None if batch is None else batch.to_proto()
        request = learner_pb2.StepRequest(token=self.token, step=step, batch=message)
        response: learner_pb2.StepResponse = await self._watched(f"step {step}", self._result(self._stub.Step(request)))
        self.step = step
        return response.result

    async def publish(self, step: int) -> ModelRef:
        """Writes the current weights to the store."""
        stream = self._stub.Publish(learner_pb2.PublishRequest(token=self.token, step=step))
        response: learner_pb2.PublishResponse = await self._watched(f"publishing step {step}", self._result(stream))
        return ModelRef.from_proto(response.model)

    async def save(self, step: int) -> ObjectRef:
        """Writes all state to the store; the manifest names it."""
        stream = self._stub.Save(learner_pb2.SaveRequest(token=self.token, step=step))
        response: learner_pb2.SaveResponse = await self._watched(f"saving step {step}", self._result(stream))
        return ObjectRef.from_proto(response.manifest)

    async def export(self, extra_files: Mapping[str, bytes]) -> learner_pb2.ExportedModel:
        """Writes a Hugging Face folder to the store."""
        stream = self._stub.Export(learner_pb2.ExportRequest(token=self.token, extra_files=extra_files))
        response: learner_pb2.ExportResponse = await self._watched("export", self._result(stream))
        return response.exported

    async def logprobs(
        self, request: learner_pb2.ComputePolicyLogprobsRequest
    ) -> learner_pb2.ComputePolicyLogprobsResponse:
        """Logprobs of given tokens under the policy in training."""
        call = _call(self.address, lambda: self._stub.ComputePolicyLogprobs(request, timeout=LOGPROBS_TIMEOUT_SECONDS))
        response: learner_pb2.ComputePolicyLogprobsResponse = await self._watched("logprobs", call)
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

    async def _while_it_lives(self, call: Coroutine[Any, Any, T]) -> T:
        """Result of a call without heartbeats. Raises Unavailable when the learner gives no sign of life meanwhile."""
        self._heard = time.monotonic()
        task = asyncio.create_task(call)
        try:
            while not (await asyncio.wait({task}, timeout=LIFE_LOOK_SECONDS))[0]:
                if time.monotonic() - self._heard > LOST_AFTER_SECONDS:
                    raise Unavailable(
                        f"learner at {self.address}: no sign of life for {LOST_AFTER_SECONDS:g} s; it hangs or is cut "
                        "off"
                    )
            return await task
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _signs_of_life(self) -> None:
        """A learner frees itself when its owner is silent; between steps these calls are what it hears."""
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
            try:
                await self._stub.GetStatus(
                    learner_pb2.GetStatusRequest(token=self.token), timeout=STATUS_TIMEOUT_SECONDS
                )
                self._heard = time.monotonic()
            except grpc.aio.AioRpcError as error:
                log.info("sign of life not heard", address=self.address, error=error.details())

    async def _watched(self, doing: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except OutOfMemory as error:
            raise self._loss(doing, error) from error
        except (RunFailed, InvalidInput):
            raise
        except (Unavailable, Overloaded, DeadlineExpired) as error:
            if await self._is_ours():
                raise
            raise self._loss(doing, error) from error
        except QuatrainError as error:
            raise self._loss(doing, error) from error

    async def _is_ours(self) -> bool:
        try:
            status = await self._stub.GetStatus(
                learner_pb2.GetStatusRequest(token=self.token), timeout=STATUS_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
        return bool(status.token == self.token)

    def _loss(self, doing: str, error: QuatrainError) -> "LearnerLost":
        stage = self.stage or "no stage"
        version = f" (policy version {self.step})" if self.stage is not None and self.stage.uses_rollouts else ""
        cause = error.message.removeprefix(f"learner at {self.address}: ")
        reason = error.code_reason if isinstance(error, OutOfMemory) else None
        return LearnerLost(f"learner {self.address} lost at {stage} {doing}{version}: {cause}", reason=reason)


class LearnerPool:
    """All learners that the targets name; the targets are read again at every opening, so learners may come and go.

    Jobs that wait stand in a line, so that a learner goes to the one of the highest priority and not to the one that
    happens to ask first.
    """

    def __init__(self, targets: Sequence[str], tls: ChannelTls | None = None) -> None:
        self._targets = tuple(targets)
        self._tls = tls
        self._line: dict[str, Rank] = {}
        self._opening: set[str] = set()
        self._count = 0

    async def count(self) -> int:
        """How many learners the targets name, whether they answer or not. While nobody can tell: as many as last."""
        try:
            self._count = len(await resolve_targets(self._targets))
        except QuatrainError as error:
            log.info("learners not counted", last=self._count, error=error.message)
        return self._count

    async def standings(self) -> Counter[str]:
        """How many learners are `free`, `busy` with a job, and `silent`. Raises Unavailable when nobody can tell."""
        found = await self._statuses()
        return Counter(
            "silent" if isinstance(status, QuatrainError) else "busy" if status.HasField("token") else "free"
            for _, status in found
        )

    async def open(self, request: learner_pb2.OpenRequest, rank: Rank) -> LearnerSession:
        """Opens the first learner that takes the job: one that holds it already, else a free one.

        Who is refused keeps a place in the line until `leave`. Raises LearnerBusy when all are busy or another job is
        before this one, Unavailable when none answers, and what Open itself refuses.
        """
        job = request.token.job
        self._line[job] = rank
        reachable = await self._reachable()
        if not reachable:
            raise Unavailable(f"no learner answers at {', '.join(self._targets)}: start one, or look at its log")
        mine = [a for a, s in reachable if s.HasField("token") and s.token.job == job]
        free = [a for a, s in reachable if not s.HasField("token") and a not in self._opening]
        before = sorted(self._line, key=self._line.__getitem__)[: len(free)]
        if not mine and free and job not in before:
            raise LearnerBusy(f"the free learners go to {', '.join(map(repr, before))}")
        refusal = ""
        for address in [*mine, *free]:
            self._line.pop(job, None)  # This learner is ours; the next job in the line may take another one meanwhile.
            self._opening.add(address)
            try:
                return await _open_at(address, request, self._tls)
            except (LearnerBusy, Unavailable, Overloaded, DeadlineExpired) as error:
                log.info("learner not taken", address=address, error=error.message)
                refusal = error.message
            finally:
                self._opening.discard(address)
            self._line[job] = rank
        raise LearnerBusy(refusal or f"all {len(reachable)} learners are busy")

    def leave(self, job: str) -> None:
        """Takes the job out of the line."""
        self._line.pop(job, None)

    async def free(self, job: str) -> None:
        """Closes what was left open for a job. A learner that cannot be reached frees itself in time."""
        try:
            left = [(a, s.token) for a, s in await self._reachable() if s.HasField("token") and s.token.job == job]
        except QuatrainError as error:
            log.info("learners not freed", job=job, error=error.message)
            return
        for address, token in left:
            await LearnerSession(address, token, self._tls).close()

    async def _reachable(self) -> list[tuple[str, learner_pb2.GetStatusResponse]]:
        reachable: list[tuple[str, learner_pb2.GetStatusResponse]] = []
        for address, status in await self._statuses():
            if isinstance(status, QuatrainError):
                log.info("learner does not answer", address=address, error=status.message)
            else:
                reachable.append((address, status))
        return reachable

    async def _statuses(self) -> list[tuple[str, learner_pb2.GetStatusResponse | QuatrainError]]:
        addresses = await resolve_targets(self._targets)
        found = await asyncio.gather(*(_status(address, self._tls) for address in addresses))
        return list(zip(addresses, found, strict=True))


async def _open_at(address: str, request: learner_pb2.OpenRequest, tls: ChannelTls | None) -> LearnerSession:
    session = LearnerSession(address, request.token, tls)
    opened = False
    try:
        await session.open(request)
        opened = True
    except asyncio.CancelledError:
        await session.close()  # It may have begun to serve us, and nobody would know.
        raise
    finally:
        if not opened:
            await session.abandon()
    return session


async def _status(address: str, tls: ChannelTls | None) -> learner_pb2.GetStatusResponse | QuatrainError:
    channel = open_channel(address, service=SERVICE, tls=tls)
    try:
        stub = learner_pb2_grpc.LearnerServiceStub(channel)
        request = learner_pb2.GetStatusRequest()
        status: learner_pb2.GetStatusResponse = await _call(
            address, lambda: stub.GetStatus(request, timeout=STATUS_TIMEOUT_SECONDS)
        )
        return status
    except QuatrainError as error:
        return error
    finally:
        await channel.close(None)


async def _call(address: str, call: Callable[[], Awaitable[Any]]) -> Any:
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service="learner", target=address) from error
