"""The generation service over real gRPC, its policies in a real store."""

import asyncio
import json
from pathlib import Path

import grpc
import grpc.aio
import numpy as np
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.integration.generation.serving import PROMPTS, request_for, run
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.config import ProcessConfig
from quatrain.generation.__main__ import serve
from quatrain.generation.engines.base import Engine
from quatrain.generation.engines.transformers import TransformersEngine
from quatrain.generation.servicer import SERVICE
from quatrain.models.loading import load_causal_lm
from quatrain.models.logprobs import completion_logprobs
from quatrain.rpc.tensors import from_ragged_floats, from_ragged_ints
from quatrain.storage.folders import FolderCache, upload_folder
from quatrain.storage.local import LocalStore
from quatrain.v1 import common_pb2, generation_pb2
from quatrain.v1.generation_pb2_grpc import GenerationServiceStub


def engine_of(store: LocalStore, cache: Path) -> Engine:
    return TransformersEngine(FolderCache(store, cache, 1 << 30).fetch, device="cpu", threads=1, queue_size=4)


def test_versions_are_pulled_used_and_named_in_the_answer(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    folders = [save_tiny_model(tmp_path / f"m{number}", seed=number) for number in range(4)]
    digests = [upload_folder(store, f"policy/{number}", folder) for number, folder in enumerate(folders)]

    async def test(stub: GenerationServiceStub, health: health_pb2_grpc.HealthStub) -> None:
        ready = await health.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=10)
        assert ready.status == health_pb2.HealthCheckResponse.SERVING
        found = await stub.GetGenerationCapabilities(generation_pb2.GetGenerationCapabilitiesRequest(), timeout=10)
        assert (found.engine, found.exact_logprobs, found.job_slots) == ("transformers", True, 1)
        answers: dict[int, generation_pb2.GenerateResponse] = {}
        for number in (0, 1, 2, 3, 0, 2):  # the third and later loads reuse the memory of an older version
            answer = await stub.Generate(request_for(digests[number], version=number), timeout=30)
            tokens, logprobs = from_ragged_ints(answer.completion_ids), from_ragged_floats(answer.logprobs)
            model = load_causal_lm(folders[number])
            plain = completion_logprobs(model, PROMPTS, tokens, temperature=0.9, token_budget=64)
            np.testing.assert_allclose(np.concatenate(logprobs), np.concatenate(plain), atol=1e-5, rtol=0)
            assert answer.policy.policy_version == number
            assert answer.policy.digest == digests[number]
            for row, reason in zip(tokens, answer.finish_reasons, strict=True):
                stopped = row[-1] in (3, 5)
                assert reason == (common_pb2.FINISH_REASON_STOP if stopped else common_pb2.FINISH_REASON_LENGTH)
            if number in answers:
                assert answers[number].completion_ids == answer.completion_ids
                assert answers[number].logprobs == answer.logprobs
            answers[number] = answer

    run(engine_of(store, tmp_path / "cache"), test)


@pytest.mark.usefixtures("quick_rereads")
def test_failures_have_their_status(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    digest = upload_folder(store, "policy/1", save_tiny_model(tmp_path / "m"))
    damaged = upload_folder(store, "policy/2", save_tiny_model(tmp_path / "n", seed=1))
    weights = bytearray(store.get("policy/2/model.safetensors"))
    weights[-1] ^= 1
    store.put("policy/2/model.safetensors", bytes(weights))

    async def test(stub: GenerationServiceStub, health: health_pb2_grpc.HealthStub) -> None:
        async def code_of(request: generation_pb2.GenerateRequest, timeout: float | None = 30) -> grpc.StatusCode:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Generate(request, timeout=timeout)
            return caught.value.code()

        outside = [np.array([40], np.int32)]
        assert await code_of(request_for(digest, prompts=outside)) == grpc.StatusCode.INVALID_ARGUMENT
        assert await code_of(request_for("0" * 64)) == grpc.StatusCode.DATA_LOSS
        assert await code_of(request_for(damaged, version=2)) == grpc.StatusCode.DATA_LOSS
        assert await code_of(request_for("0" * 64, version=9)) == grpc.StatusCode.NOT_FOUND
        assert await code_of(request_for(digest), timeout=None) == grpc.StatusCode.INVALID_ARGUMENT
        await stub.Generate(request_for(digest), timeout=30)

    run(engine_of(store, tmp_path / "cache"), test)


def test_the_process_serves_from_its_configuration(tmp_path: Path) -> None:
    port_file = tmp_path / "ports.json"
    config = ProcessConfig.model_validate(
        {
            "server": {"port_file": port_file},
            "storage": {"kind": "local", "root": tmp_path / "store"},
            "generation": {"engine": "fake"},
        }
    )

    async def scenario() -> None:
        task = asyncio.ensure_future(serve(config))
        for _ in range(1000):
            if port_file.exists():
                break
            await asyncio.sleep(0.02)
        port = json.loads(port_file.read_text())["port"]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            answer = await GenerationServiceStub(channel).Generate(request_for("d"), timeout=10)
        assert len(answer.finish_reasons) == 3
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(scenario())
