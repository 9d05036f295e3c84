"""ReferenceService on the wire: protobuf <-> dataclasses, nothing else."""

import asyncio
from typing import Any

import grpc.aio
from typing_extensions import override

from quatrain.faults import fault_point
from quatrain.reference.backends.base import Request, Rows
from quatrain.reference.service import ReferenceService
from quatrain.refs import ModelRef
from quatrain.rpc.tensors import from_ragged_ints, to_ragged_floats
from quatrain.v1 import reference_pb2, reference_pb2_grpc

SERVICE = "quatrain.v1.ReferenceService"

Context = grpc.aio.ServicerContext[Any, Any]


class ReferenceServicer(reference_pb2_grpc.ReferenceServiceServicer):
    """`ReferenceService` on the wire; the interceptor maps errors."""

    def __init__(self, service: ReferenceService) -> None:
        self._service = service

    @override
    async def ComputeReferenceLogprobs(
        self, request: reference_pb2.ComputeReferenceLogprobsRequest, context: Context
    ) -> reference_pb2.ComputeReferenceLogprobsResponse:
        fault_point("reference.before")
        # In threads: a chunk may have millions of tokens.
        result = await self._service.compute(await asyncio.to_thread(_request_of, request))
        fault_point("reference.after")
        logprobs = await asyncio.to_thread(to_ragged_floats, result.logprobs)
        return reference_pb2.ComputeReferenceLogprobsResponse(
            logprobs=logprobs, model=request.model, compute_seconds=result.compute_seconds
        )


def _request_of(message: reference_pb2.ComputeReferenceLogprobsRequest) -> Request:
    prompts = from_ragged_ints(message.prompt_ids, "prompt_ids")
    completions = from_ragged_ints(message.completion_ids, "completion_ids")
    return Request(
        job=message.job,
        model=ModelRef.from_proto(message.model),
        unchecked=Rows(prompts, completions),
        temperature=message.temperature,
        dtype=message.dtype or "float32",
    )
