"""The session of a job with a learner: opening a stage, training its steps, and telling when the learner is lost."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc

from quatrain.concurrency import cancel_and_wait
from quatrain.errors import (
    TRANSIENT_ERRORS,
    InvalidInput,
    OutOfMemory,
    QuatrainError,
    RunFailed,
    Unavailable,
)
from quatrain.orchestrator.peers.service_clients import Floats, Ints, from_named_values
from quatrain.refs import ModelRef, ObjectRef, TableRef
from quatrain.rpc.certificates import ChannelTls
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import result_of
from quatrain.rpc.tensors import from_ragged_floats, to_ragged_ints
from quatrain.stages import Stage
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

log = get_logger("learners")

LEARNER_SERVICE = "quatrain.v1.LearnerService"
STATUS_TIMEOUT_SECONDS = 5.0
OPEN_TIMEOUT_SECONDS = 24 * 3600.0
"""Every call has a time-out, but a large model over a slow store takes long. What really bounds it are the signs of
life, and the learner's own reads of the store, each of which ends when nothing more comes."""
LOGPROBS_TIMEOUT_SECONDS = 120.0
LOST_AFTER_SECONDS = 30.0
SIGN_OF_LIFE_SECONDS = 5.0
LIFE_POLL_SECONDS = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class OwnerToken:
    """Proof of ownership of a job, for the learner."""

    job: str
    epoch: int
    attempt: int

    def to_proto(self) -> common_pb2.OwnerToken:
        """Return the message."""
        return common_pb2.OwnerToken(job=self.job, epoch=self.epoch, attempt=self.attempt)

    @staticmethod
    def from_proto(message: common_pb2.OwnerToken) -> "OwnerToken":
        """Reverse `to_proto`."""
        return OwnerToken(message.job, message.epoch, message.attempt)


@dataclass(frozen=True)
class OpenCall:
    """Everything that a learner needs to open a stage. `value_*`: where the value model of PPO starts."""

    token: OwnerToken
    stage: Stage
    section_json: str
    """The stage's resolved section of the spec."""
    model: ModelRef
    tokenizer: ModelRef
    total_steps: int
    seed: int
    dtype: str
    deterministic: bool
    exact_logprobs: bool
    temperature: float
    data: TableRef | None = None
    held_out: TableRef | None = None
    checkpoint: ObjectRef | None = None
    """The checkpoint to continue from; None: the start of the stage."""
    value_model: ModelRef | None = None
    value_scale: float = 1.0
    value_offset: float = 0.0

    def to_proto(self) -> learner_pb2.OpenRequest:
        """Return the message."""
        return learner_pb2.OpenRequest(
            token=self.token.to_proto(),
            stage=self.stage.proto,
            config_json=self.section_json,
            model=self.model.to_proto(),
            value_model=None if self.value_model is None else self.value_model.to_proto(),
            value_scale=self.value_scale,
            value_offset=self.value_offset,
            data=None if self.data is None else self.data.to_proto(),
            held_out=None if self.held_out is None else self.held_out.to_proto(),
            checkpoint=None if self.checkpoint is None else self.checkpoint.to_proto(),
            total_steps=self.total_steps,
            seed=self.seed,
            dtype=self.dtype,
            deterministic=self.deterministic,
            tokenizer=self.tokenizer.to_proto(),
            exact_logprobs=self.exact_logprobs,
            temperature=self.temperature,
        )


@dataclass(frozen=True)
class TrainedStep:
    """The result of a training step: metrics, in PPO the per-token table, and seconds of computation."""

    metrics: dict[str, float | None]
    tokens: ObjectRef | None
    compute_seconds: float


@dataclass(frozen=True)
class ExportedModel:
    """A finished model in the store, and the sha256 of its weight files."""

    model: ModelRef
    weights_sha256: str


class LearnerLost(QuatrainError):
    """The learner of a job is gone or no longer ours: the job goes on with a new attempt."""

    reason = "LEARNER_LOST"


class LearnerSession:
    """One learner that serves, or is asked to serve, a token.

    Methods raise LearnerLost, what the computation itself raised (RunFailed, InvalidInput), and Unavailable, Overloaded
    or DeadlineExpired while the learner is still ours but cannot answer now (its store may be away): ask again, a
    repeated call attaches to what runs or gives what was computed.
    """

    def __init__(self, address: str, token: OwnerToken, tls: ChannelTls | None = None) -> None:
        self.address = address
        self.token = token
        self.learner_id = ""
        self.stage: Stage | None = None
        self.step = 0
        self._channel = open_channel(address, service=LEARNER_SERVICE, tls=tls)
        self._stub = learner_pb2_grpc.LearnerServiceStub(self._channel)
        self._heard = time.monotonic()
        self._alive = asyncio.create_task(self._signs_of_life())

    async def open(self, call: OpenCall) -> None:
        """Open a stage, which may take long; the signs of life keep the learner ours, and tell that it lives.

        Raises LearnerBusy, Unavailable, LearnerLost when it has too little memory, and what Open itself refuses.
        """
        self.stage, request = call.stage, call.to_proto()
        try:
            response: learner_pb2.OpenResponse = await self._while_it_lives(
                call_learner(self.address, lambda: self._stub.Open(request, timeout=OPEN_TIMEOUT_SECONDS))
            )
        except OutOfMemory as error:
            raise self._loss("opening", error) from error
        self.learner_id = response.status.learner_id
        self.step = response.status.step

    async def train(self, step: int, batch: ObjectRef | None) -> TrainedStep:
        """Train one step."""
        message = None if batch is None else batch.to_proto()
        request = learner_pb2.StepRequest(token=self.token.to_proto(), step=step, batch=message)
        response: learner_pb2.StepResponse = await self._watched(f"step {step}", self._result(self._stub.Step(request)))
        self.step, result = step, response.result
        return TrainedStep(
            metrics=dict(from_named_values(result.metrics)),
            tokens=ObjectRef.from_proto(result.tokens) if result.tokens.key else None,
            compute_seconds=result.compute_seconds,
        )

    async def publish(self, step: int) -> ModelRef:
        """Write the current weights to the store."""
        stream = self._stub.Publish(learner_pb2.PublishRequest(token=self.token.to_proto(), step=step))
        response: learner_pb2.PublishResponse = await self._watched(f"publishing step {step}", self._result(stream))
        return ModelRef.from_proto(response.model)

    async def save(self, step: int) -> ObjectRef:
        """Write all state to the store and return the manifest."""
        stream = self._stub.Save(learner_pb2.SaveRequest(token=self.token.to_proto(), step=step))
        response: learner_pb2.SaveResponse = await self._watched(f"saving step {step}", self._result(stream))
        return ObjectRef.from_proto(response.manifest)

    async def export(self, extra_files: Mapping[str, bytes]) -> ExportedModel:
        """Write a Hugging Face folder to the store."""
        request = learner_pb2.ExportRequest(token=self.token.to_proto(), extra_files=extra_files)
        stream = self._stub.Export(request)
        response: learner_pb2.ExportResponse = await self._watched("export", self._result(stream))
        exported = response.exported
        return ExportedModel(ModelRef.by_digest(exported.model.digest), exported.weights_sha256)

    async def logprobs(self, prompts: Sequence[Ints], completions: Sequence[Ints], temperature: float) -> list[Floats]:
        """Return the logprobs of completions under the policy in training."""
        request = learner_pb2.ComputePolicyLogprobsRequest(
            token=self.token.to_proto(),
            prompt_ids=to_ragged_ints(prompts),
            completion_ids=to_ragged_ints(completions),
            temperature=temperature,
        )
        call = call_learner(
            self.address, lambda: self._stub.ComputePolicyLogprobs(request, timeout=LOGPROBS_TIMEOUT_SECONDS)
        )
        response: learner_pb2.ComputePolicyLogprobsResponse = await self._watched("logprobs", call)
        return from_ragged_floats(response.logprobs, "logprobs")

    async def close(self) -> None:
        """Free the learner if it can be reached, and end the signs of life."""
        self._alive.cancel()
        try:
            await self._stub.Close(
                learner_pb2.CloseRequest(token=self.token.to_proto()), timeout=STATUS_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError as error:
            log.info("learner not closed", address=self.address, error=error.details())
        await self._channel.close(None)

    async def abandon(self) -> None:
        """End the signs of life without telling the learner."""
        self._alive.cancel()
        await self._channel.close(None)

    async def _result(self, stream: Any) -> Any:
        return await result_of(stream, LOST_AFTER_SECONDS, service="learner", target=self.address)

    async def _while_it_lives(self, call: Coroutine[Any, Any, T]) -> T:
        """Return the result of a call without heartbeats. Raises Unavailable when the learner gives no sign of life."""
        self._heard = time.monotonic()
        task = asyncio.create_task(call)
        try:
            while not (await asyncio.wait({task}, timeout=LIFE_POLL_SECONDS))[0]:
                if time.monotonic() - self._heard > LOST_AFTER_SECONDS:
                    raise Unavailable(
                        f"learner at {self.address}: no sign of life for {LOST_AFTER_SECONDS:g} s; it hangs or is cut "
                        "off"
                    )
            return await task
        finally:
            await cancel_and_wait(task)

    async def _signs_of_life(self) -> None:
        """Call the learner regularly: it frees itself when its owner is silent, as between steps."""
        while True:
            await asyncio.sleep(SIGN_OF_LIFE_SECONDS)
            try:
                await self._stub.GetStatus(
                    learner_pb2.GetStatusRequest(token=self.token.to_proto()), timeout=STATUS_TIMEOUT_SECONDS
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
        except TRANSIENT_ERRORS as error:
            if await self._is_ours():
                raise
            raise self._loss(doing, error) from error
        except QuatrainError as error:
            raise self._loss(doing, error) from error

    async def _is_ours(self) -> bool:
        try:
            status = await self._stub.GetStatus(
                learner_pb2.GetStatusRequest(token=self.token.to_proto()), timeout=STATUS_TIMEOUT_SECONDS
            )
        except grpc.aio.AioRpcError:
            return False
        return OwnerToken.from_proto(status.token) == self.token

    def _loss(self, doing: str, error: QuatrainError) -> "LearnerLost":
        stage = self.stage or "no stage"
        version = f" (policy version {self.step})" if self.stage is not None and self.stage.uses_rollouts else ""
        cause = error.message.removeprefix(f"learner at {self.address}: ")
        reason = error.code_reason if isinstance(error, OutOfMemory) else None
        return LearnerLost(f"learner {self.address} lost at {stage} {doing}{version}: {cause}", reason=reason)


async def call_learner(address: str, call: Callable[[], Awaitable[Any]]) -> Any:
    """Return the answer of a unary call. Raises what the learner reports, as one of our errors."""
    try:
        return await call()
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service="learner", target=address) from error
