"""A generation service in this process, over real gRPC."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import grpc.aio
import numpy as np
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quatrain.config import ProcessConfig
from quatrain.generation.engines.base import Engine
from quatrain.generation.service import GenerationService
from quatrain.generation.servicer import SERVICE, GenerationServicer
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.tensors import to_ragged_ints
from quatrain.v1 import common_pb2, generation_pb2
from quatrain.v1.generation_pb2_grpc import GenerationServiceStub, add_GenerationServiceServicer_to_server

PROMPTS = [np.array([1, 2, 9], np.int32), np.array([4], np.int32), np.array([7, 7], np.int32)]
Test = Callable[[GenerationServiceStub, health_pb2_grpc.HealthStub], Awaitable[None]]


def run(engine: Engine, test: Test) -> None:
    """Runs `test` against a server with this engine."""
    service = GenerationService(engine)

    def register(server: grpc.aio.Server) -> list[str]:
        add_GenerationServiceServicer_to_server(GenerationServicer(service), server)
        return [SERVICE]

    async def scenario() -> None:
        server = RpcServer(ProcessConfig().server, "generation", register)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.port}") as channel:
                health = health_pb2_grpc.HealthStub(channel)
                early = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
                assert early.status == health_pb2.HealthCheckResponse.NOT_SERVING
                await server.serve()
                await test(GenerationServiceStub(channel), health)
        finally:
            await server.stop()
            await engine.close()

    asyncio.run(scenario())


def request_for(
    digest: str,
    *,
    version: int = 1,
    prompts: Sequence[np.ndarray] = PROMPTS,
    seeds: Sequence[int] = (2**64 - 1, 5, 6),
) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        job="job",
        policy=common_pb2.ModelRef(uri=f"store:policy/{version}", digest=digest, policy_version=version),
        prompt_ids=to_ragged_ints(prompts),
        seeds=seeds[: len(prompts)],
        sampling=generation_pb2.SamplingParams(max_new_tokens=8, temperature=0.9, eos_token_ids=[3, 5]),
    )
