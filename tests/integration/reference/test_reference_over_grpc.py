"""The reference service over real gRPC, its model in a real store."""

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.config import ProcessConfig
from quatrain.models.loading import load_causal_lm
from quatrain.models.logprobs import completion_logprobs
from quatrain.reference.backends.transformers import TransformersBackend
from quatrain.reference.service import ReferenceService
from quatrain.reference.servicer import SERVICE, ReferenceServicer
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.tensors import from_ragged_floats, to_ragged_ints
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.storage.local import LocalStore
from quatrain.v1 import common_pb2
from quatrain.v1.reference_pb2 import ComputeReferenceLogprobsRequest
from quatrain.v1.reference_pb2_grpc import ReferenceServiceStub, add_ReferenceServiceServicer_to_server

PROMPTS = [np.array([1, 2, 9], np.int32), np.array([4], np.int32)]
COMPLETIONS = [np.array([5], np.int32), np.array([7, 7, 0, 3], np.int32)]


def request_for(uri: str, digest: str, temperature: float = 1.0) -> ComputeReferenceLogprobsRequest:
    return ComputeReferenceLogprobsRequest(
        job="job",
        model=common_pb2.ModelRef(uri=uri, digest=digest),
        prompt_ids=to_ragged_ints(PROMPTS),
        completion_ids=to_ragged_ints(COMPLETIONS),
        temperature=temperature,
    )


@pytest.mark.usefixtures("quick_rereads")
def test_logprobs_over_the_wire_and_the_status_of_failures(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    model_folder = save_tiny_model(tmp_path / "m")
    digest = upload_model_folder(store, model_folder).digest
    cache = FolderCache(store, tmp_path / "cache", 1 << 30)
    backend = TransformersBackend(cache.fetch, device="cpu", threads=1, queue_size=4)
    service = ReferenceService(backend)

    def register(server: grpc.aio.Server) -> list[str]:
        add_ReferenceServiceServicer_to_server(ReferenceServicer(service), server)
        return [SERVICE]

    async def scenario() -> None:
        server = RpcServer(ProcessConfig().server, "reference", register)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.port}") as channel:
                stub, health = ReferenceServiceStub(channel), health_pb2_grpc.HealthStub(channel)
                check = health_pb2.HealthCheckRequest(service=SERVICE)
                assert (await health.Check(check, timeout=10)).status == health_pb2.HealthCheckResponse.NOT_SERVING
                await server.serve()
                assert (await health.Check(check, timeout=10)).status == health_pb2.HealthCheckResponse.SERVING

                answer = await stub.ComputeReferenceLogprobs(request_for(f"sha256:{digest}", digest, 0.7), timeout=30)
                plain = completion_logprobs(
                    load_causal_lm(model_folder), PROMPTS, COMPLETIONS, temperature=0.7, token_budget=64
                )
                for row, expected in zip(from_ragged_floats(answer.logprobs), plain, strict=True):
                    np.testing.assert_allclose(row, expected, atol=1e-5)
                assert answer.model.digest == digest

                for request, code in (
                    (request_for(f"sha256:{digest}", digest, 0.0), grpc.StatusCode.INVALID_ARGUMENT),
                    (request_for(f"sha256:{digest}", "0" * 64), grpc.StatusCode.DATA_LOSS),
                    (request_for("store:nothing/here", "0" * 64), grpc.StatusCode.NOT_FOUND),
                    (request_for("s3://elsewhere", "1" * 64), grpc.StatusCode.INVALID_ARGUMENT),
                ):
                    with pytest.raises(grpc.aio.AioRpcError) as caught:
                        await stub.ComputeReferenceLogprobs(request, timeout=30)
                    assert caught.value.code() == code
        finally:
            await server.stop()
            await backend.close()

    asyncio.run(scenario())
