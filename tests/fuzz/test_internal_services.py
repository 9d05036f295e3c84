"""The internal services against malformed contents: they trust their callers, and outlive their mistakes."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from tests.fuzz.calls import FORBIDDEN, Fuzzer, service_of
from tests.integration.orchestrator.world import World, run

from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.storage.memory import MemoryStore
from quatrain.v1 import common_pb2, generation_pb2, learner_pb2, reference_pb2, reward_pb2

SERVICES = {
    "generation": service_of(generation_pb2, "GenerationService"),
    "reward": service_of(reward_pb2, "RewardService"),
    "reference": service_of(reference_pb2, "ReferenceService"),
    "learner": service_of(learner_pb2, "LearnerService"),
}


def known(world: World) -> Mapping[str, Any]:
    """Sound values of the fields that everything else depends on."""
    digest = world.model_uri.removeprefix("sha256:")
    model = common_pb2.ModelRef(uri=world.model_uri, digest=digest)
    return {
        "token": common_pb2.OwnerToken(job="job", epoch=1, attempt=1),
        "model": model,
        "policy": model,
        "tokenizer": model,
        "job": "job",
        "config_json": json.dumps({"epochs": 1, "batch_size": 2}),
        "reward_json": json.dumps({"functions": [{"path": "tests.fuzz.mutations:any_value"}], "timeout": 5.0}),
        "prompt_json": '"ab"',
        "dtype": "float32",
        "temperature": 1.0,
        "missing_eos_penalty": 0.0,
    }


def attack(root: Path, name: str, seed: int, rounds: int) -> Fuzzer:
    found: list[Fuzzer] = []

    async def scenario() -> None:
        store = MemoryStore()
        world = World(root, store)
        functions: Any = FunctionBackend(store, FunctionSettings())
        world.reward = functions
        await world.start(learners=1)
        address = world.learner_addresses[0] if name == "learner" else world.addresses[name]
        try:
            async with grpc.aio.insecure_channel(address) as channel:
                fuzzer = Fuzzer(channel, dict(known(world)), forbidden=FORBIDDEN)
                await fuzzer.attack(SERVICES[name], seed, rounds)
                found.append(fuzzer)
        finally:
            await functions.close()
            await world.close()

    run(scenario, limit=600.0)
    return found[0]


@pytest.mark.parametrize("name", SERVICES)
def test_malformed_requests_are_the_callers_error(tmp_path: Path, name: str) -> None:
    fuzzer = attack(tmp_path, name, seed=1, rounds=10)

    assert fuzzer.wrong == []
    assert set(fuzzer.codes) == {method.name for method in SERVICES[name].methods}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", SERVICES)
def test_many_more_malformed_requests(tmp_path: Path, name: str) -> None:
    assert attack(tmp_path, name, seed=2, rounds=150).wrong == []
