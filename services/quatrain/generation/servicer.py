"""GenerationService on the wire: protobuf <-> dataclasses, nothing else."""

import asyncio
from typing import Any

import grpc.aio
from typing_extensions import override

from quatrain.faults import fault_point
from quatrain.generation.engines.base import Chunk, Completion, Request, Sampling
from quatrain.generation.service import GenerationService
from quatrain.refs import ModelRef
from quatrain.rpc.tensors import from_ragged_ints, to_ragged_floats, to_ragged_ints
from quatrain.v1 import common_pb2, generation_pb2, generation_pb2_grpc

SERVICE = "quatrain.v1.GenerationService"

Context = grpc.aio.ServicerContext[Any, Any]

_FINISH_REASONS = {
    "stop": common_pb2.FINISH_REASON_STOP,
    "length": common_pb2.FINISH_REASON_LENGTH,
}


class GenerationServicer(generation_pb2_grpc.GenerationServiceServicer):
    """`GenerationService` on the wire; the interceptor maps errors."""

    def __init__(self, service: GenerationService) -> None:
        self._service = service

    @override
    async def Generate(
        self, request: generation_pb2.GenerateRequest, context: Context
    ) -> generation_pb2.GenerateResponse:
        fault_point("generation.before")
        # In threads: a chunk may have millions of tokens.
        result = await self._service.generate(await asyncio.to_thread(_request_of, request))
        fault_point("generation.after")
        return await asyncio.to_thread(_response_of, result.completions, result.compute_seconds, request.policy)

    @override
    async def GetGenerationCapabilities(
        self, request: generation_pb2.GetGenerationCapabilitiesRequest, context: Context
    ) -> generation_pb2.GetGenerationCapabilitiesResponse:
        found = self._service.capabilities()
        return generation_pb2.GetGenerationCapabilitiesResponse(
            engine=found.engine,
            exact_logprobs=found.exact_logprobs,
            device=found.device,
            job_slots=found.job_slots,
        )


def _request_of(message: generation_pb2.GenerateRequest) -> Request:
    sampling = Sampling(
        max_new_tokens=message.sampling.max_new_tokens,
        temperature=message.sampling.temperature,
        ignore_eos=message.sampling.ignore_eos,
        eos_token_ids=tuple(message.sampling.eos_token_ids),
    )
    return Request(
        job=message.job,
        policy=ModelRef.from_proto(message.policy),
        unchecked=Chunk(from_ragged_ints(message.prompt_ids, "prompt_ids"), list(message.seeds), sampling),
        dtype=message.dtype or "float32",
    )


def _response_of(
    completions: list[Completion], seconds: float, policy: common_pb2.ModelRef
) -> generation_pb2.GenerateResponse:
    return generation_pb2.GenerateResponse(
        completion_ids=to_ragged_ints([completion.token_ids for completion in completions]),
        logprobs=to_ragged_floats([completion.logprobs for completion in completions]),
        finish_reasons=[_FINISH_REASONS[completion.finish_reason] for completion in completions],
        policy=policy,
        compute_seconds=seconds,
    )
