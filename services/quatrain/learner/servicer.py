"""LearnerService on the wire: protobuf to dataclasses and back, nothing else."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any, TypeVar

import grpc
from typing_extensions import override

from quatrain.errors import InvalidInput
from quatrain.learner.requests import OpenRequest, Status, StepOutcome, Token
from quatrain.learner.service import LearnerService
from quatrain.refs import ModelRef, ObjectRef
from quatrain.rpc.streams import Beat, Done, with_heartbeats
from quatrain.rpc.tensors import from_ragged_ints, to_ragged_floats
from quatrain.stages import stage_of_proto
from quatrain.v1 import common_pb2, learner_pb2, learner_pb2_grpc

T = TypeVar("T")
Context = grpc.aio.ServicerContext[Any, Any]


class LearnerServicer(learner_pb2_grpc.LearnerServiceServicer):
    """`LearnerService` on the wire. A heartbeat that reaches the caller is the owner's sign of life."""

    def __init__(self, service: LearnerService) -> None:
        self._service = service

    @override
    async def Open(self, request: learner_pb2.OpenRequest, context: Context) -> learner_pb2.OpenResponse:
        return learner_pb2.OpenResponse(status=_status(await self._service.open(_open_request(request))))

    @override
    async def ComputePolicyLogprobs(
        self, request: learner_pb2.ComputePolicyLogprobsRequest, context: Context
    ) -> learner_pb2.ComputePolicyLogprobsResponse:
        prompts = from_ragged_ints(request.prompt_ids, "prompt_ids")
        completions = from_ragged_ints(request.completion_ids, "completion_ids")
        if len(prompts) != len(completions):
            raise InvalidInput(f"{len(prompts)} prompts do not fit {len(completions)} completions.")
        if not request.temperature > 0 or any(len(prompt) == 0 for prompt in prompts):
            raise InvalidInput("temperature must be above 0 and every prompt must have a token.")
        logprobs, version = await self._service.logprobs(
            _token(request.token), prompts, completions, request.temperature
        )
        return learner_pb2.ComputePolicyLogprobsResponse(logprobs=to_ragged_floats(logprobs), policy_version=version)

    @override
    async def Step(self, request: learner_pb2.StepRequest, context: Context) -> AsyncIterator[learner_pb2.StepResponse]:
        token = _token(request.token)
        batch = ObjectRef.from_proto(request.batch) if request.HasField("batch") else None
        async for event in self._watched(token, self._service.step(token, request.step, batch), "train"):
            if isinstance(event, Beat):
                yield learner_pb2.StepResponse(heartbeat=_heartbeat(event))
            else:
                yield learner_pb2.StepResponse(result=_result(event.value))

    @override
    async def Publish(
        self, request: learner_pb2.PublishRequest, context: Context
    ) -> AsyncIterator[learner_pb2.PublishResponse]:
        token = _token(request.token)
        async for event in self._watched(token, self._service.publish(token, request.step), "publish"):
            if isinstance(event, Beat):
                yield learner_pb2.PublishResponse(heartbeat=_heartbeat(event))
            else:
                yield learner_pb2.PublishResponse(model=event.value.to_proto())

    @override
    async def Save(self, request: learner_pb2.SaveRequest, context: Context) -> AsyncIterator[learner_pb2.SaveResponse]:
        token = _token(request.token)
        async for event in self._watched(token, self._service.save(token, request.step), "save"):
            if isinstance(event, Beat):
                yield learner_pb2.SaveResponse(heartbeat=_heartbeat(event))
            else:
                yield learner_pb2.SaveResponse(manifest=event.value.to_proto())

    @override
    async def Export(
        self, request: learner_pb2.ExportRequest, context: Context
    ) -> AsyncIterator[learner_pb2.ExportResponse]:
        token = _token(request.token)
        work = self._service.export(token, dict(request.extra_files))
        async for event in self._watched(token, work, "export"):
            if isinstance(event, Beat):
                yield learner_pb2.ExportResponse(heartbeat=_heartbeat(event))
            else:
                exported = learner_pb2.ExportedModel(
                    model=event.value.model.to_proto(), weights_sha256=event.value.weights_sha256
                )
                yield learner_pb2.ExportResponse(exported=exported)

    @override
    async def Close(self, request: learner_pb2.CloseRequest, context: Context) -> learner_pb2.CloseResponse:
        self._service.close(_token(request.token))
        return learner_pb2.CloseResponse()

    @override
    async def GetStatus(self, request: learner_pb2.GetStatusRequest, context: Context) -> learner_pb2.GetStatusResponse:
        return _status(self._service.status(_token(request.token) if request.HasField("token") else None))

    async def _watched(self, token: Token, work: "asyncio.Future[T]", phase: str) -> AsyncIterator[Beat | Done[T]]:
        async for event in with_heartbeats(work, phase, alive=self._service.check_progress):
            yield event
            if isinstance(event, Beat):
                self._service.touch(token)


def _token(message: common_pb2.OwnerToken) -> Token:
    return Token(message.job, message.epoch, message.attempt)


def _folder(message: common_pb2.ModelRef, field: str) -> ModelRef:
    if not message.uri:
        raise InvalidInput(f"{field}.uri is empty; name a folder.")
    return ModelRef.from_proto(message)


def _open_request(request: learner_pb2.OpenRequest) -> OpenRequest:
    return OpenRequest(
        token=_token(request.token),
        stage=stage_of_proto(request.stage),
        config_json=request.config_json,
        model=_folder(request.model, "model"),
        total_steps=request.total_steps,
        seed=request.seed,
        value_model=_folder(request.value_model, "value_model") if request.HasField("value_model") else None,
        value_scale=request.value_scale if request.HasField("value_scale") else 1.0,
        value_offset=request.value_offset if request.HasField("value_offset") else 0.0,
        data=ObjectRef.from_proto(request.data) if request.HasField("data") else None,
        held_out=ObjectRef.from_proto(request.held_out) if request.HasField("held_out") else None,
        dtype=request.dtype,
        deterministic=request.deterministic,
        checkpoint=ObjectRef.from_proto(request.checkpoint) if request.HasField("checkpoint") else None,
        tokenizer=_folder(request.tokenizer, "tokenizer") if request.HasField("tokenizer") else None,
        exact_logprobs=request.exact_logprobs,
        temperature=request.temperature,
    )


def _status(status: Status) -> learner_pb2.GetStatusResponse:
    message = learner_pb2.GetStatusResponse(
        learner_id=status.learner_id,
        step=status.step,
        policy_version=status.policy_version,
        running_step=status.running_step,
        device=status.device,
    )
    if status.stage is not None:
        message.stage = status.stage.proto
    if status.token is not None:
        token = status.token
        message.token.CopyFrom(common_pb2.OwnerToken(job=token.job, epoch=token.epoch, attempt=token.attempt))
    return message


def _heartbeat(beat: Beat) -> learner_pb2.Heartbeat:
    return learner_pb2.Heartbeat(phase=beat.phase, elapsed_seconds=beat.elapsed)


def _result(outcome: StepOutcome) -> learner_pb2.StepResult:
    return learner_pb2.StepResult(
        step=outcome.step,
        metrics=[common_pb2.NamedValue(name=name, value=value) for name, value in sorted(outcome.metrics.items())],
        tokens=None if outcome.tokens is None else outcome.tokens.to_proto(),
        compute_seconds=outcome.compute_seconds,
    )
