"""Real servers on real sockets inside the test's event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc.aio

from quatrain.config import ServerConfig
from quatrain.errors import InvalidInput, Overloaded
from quatrain.rpc.server.server import RpcServer
from quatrain.v1 import artifact_pb2, artifact_pb2_grpc, generation_pb2_grpc
from quatrain.v1 import generation_pb2 as pb

SERVICE = "quatrain.v1.GenerationService"

Generate = Callable[[pb.GenerateRequest, Any], Awaitable[pb.GenerateResponse]]


class Replica(generation_pb2_grpc.GenerationServiceServicer):
    """Counts its calls and answers them as the test says."""

    def __init__(self, generate: Generate | None = None) -> None:
        self.calls = 0
        self.request_ids: list[str] = []
        self._generate = generate

    async def Generate(self, request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
        self.calls += 1
        self.request_ids.append(dict(context.invocation_metadata()).get("x-request-id", ""))
        if self._generate is not None:
            return await self._generate(request, context)
        return pb.GenerateResponse()

    def register(self, server: grpc.aio.Server) -> list[str]:
        generation_pb2_grpc.add_GenerationServiceServicer_to_server(self, server)
        return [SERVICE]


@contextlib.asynccontextmanager
async def serving(
    servicer: "Replica | Artifacts", config: ServerConfig | None = None, *, public: bool = False, ready: bool = True
) -> AsyncIterator[RpcServer]:
    """A started server that serves (or still warms up)."""
    server = RpcServer(config or ServerConfig(shutdown_grace=0.0), "generation", servicer.register, public=public)
    await server.start()
    try:
        if ready:
            await server.serve()
        yield server
    finally:
        await server.stop()


def address_of(server: RpcServer) -> str:
    return f"127.0.0.1:{server.ports.port}"


def generate_of(channel: grpc.aio.Channel) -> Any:
    return generation_stub(channel).Generate


def generation_stub(channel: grpc.aio.Channel) -> Any:
    return generation_pb2_grpc.GenerationServiceStub(channel)


def artifact_stub(channel: grpc.aio.Channel) -> Any:
    return artifact_pb2_grpc.ArtifactServiceStub(channel)


class Artifacts(artifact_pb2_grpc.ArtifactServiceServicer):
    """One method of each streaming kind."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> artifact_pb2.UploadResponse:
        count = 0
        async for _ in requests:
            count += 1
        if count > 2:
            raise InvalidInput("more than two parts")
        return artifact_pb2.UploadResponse()

    async def Download(self, request: Any, context: Any) -> AsyncIterator[artifact_pb2.DownloadResponse]:
        try:
            for _ in range(3):
                yield artifact_pb2.DownloadResponse()
            while request.uri == "flood":
                yield artifact_pb2.DownloadResponse(data=bytes(2**20))
            if request.uri == "wait":
                await asyncio.sleep(60)
            raise Overloaded("enough", retry_after=2.0)
        finally:
            self.ended.set()

    def register(self, server: grpc.aio.Server) -> list[str]:
        artifact_pb2_grpc.add_ArtifactServiceServicer_to_server(self, server)
        return ["quatrain.v1.ArtifactService"]


def run(work: Callable[[], Awaitable[None]], limit: float = 20.0) -> None:
    """Run a test's coroutine with a time limit."""

    async def bounded() -> None:
        async with asyncio.timeout(limit):
            await work()

    asyncio.run(bounded())
