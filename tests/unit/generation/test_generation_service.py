"""Requests, policy slots and the queue, without gRPC."""

import asyncio
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.config import ProcessConfig
from quatrain.errors import Corrupt, InvalidInput, NotFound, Overloaded
from quatrain.generation.engines import make_engine
from quatrain.generation.engines.base import Chunk, Completion, Request, Sampling
from quatrain.generation.engines.fake import FakeEngine
from quatrain.generation.engines.slots import PolicySlots
from quatrain.generation.engines.transformers import TransformersEngine
from quatrain.generation.service import GenerationService
from quatrain.refs import ModelRef
from quatrain.storage.folders import FolderCache, upload_folder
from quatrain.storage.memory import MemoryStore

SAMPLING = Sampling(4, 1.0, ignore_eos=False, eos_token_ids=(3,))
CHUNK = Chunk([np.array([1, 2], np.int32), np.array([5], np.int32)], [1, 2], SAMPLING)


def sampling(**changes: Any) -> Request:
    return replace(REQUEST, unchecked=replace(CHUNK, sampling=replace(SAMPLING, **changes)))


REQUEST = Request("job", ModelRef("store:p/1", "d1", 1), CHUNK, "float32")


@dataclass
class NamedPolicy:
    digest: str


@dataclass
class Loading:
    """Loads policies that are names; remembers what was loaded and what was recycled."""

    loaded: list[tuple[str, str | None]] = field(default_factory=list)

    def load(self, folder: Path, dtype: str, recycle: NamedPolicy | None) -> NamedPolicy:
        self.loaded.append((folder.name, recycle.digest if recycle else None))
        return NamedPolicy(folder.name)


def version(number: int) -> ModelRef:
    return ModelRef(f"store:p/{number}", f"d{number}", number)


def slots_of(loading: Loading, job_slots: int = 1) -> PolicySlots[NamedPolicy]:
    return PolicySlots(loading.load, lambda uri, digest: Path("/cache") / digest, job_slots)


def test_two_versions_stay_and_the_third_takes_the_memory_of_the_oldest() -> None:
    loading = Loading()
    slots = slots_of(loading)

    for number in (1, 2, 1, 2, 3, 2, 1):
        assert slots.get("job", version(number), "float32") == NamedPolicy(f"d{number}")

    assert loading.loaded == [("d1", None), ("d2", None), ("d3", "d1"), ("d1", "d3")]


def test_jobs_beyond_the_slots_push_out_the_one_not_used_for_longest() -> None:
    loading = Loading()
    slots = slots_of(loading, job_slots=2)

    for job in ("a", "b", "a", "c", "a", "b"):
        slots.get(job, version(1), "float32")

    assert loading.loaded == [("d1", None), ("d1", None), ("d1", "d1"), ("d1", "d1")]


def test_a_compute_dtype_is_a_policy_of_its_own() -> None:
    loading = Loading()
    slots = slots_of(loading)

    slots.get("job", version(1), "float32")
    slots.get("job", version(1), "bfloat16")

    assert len(loading.loaded) == 2


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (replace(REQUEST, job=""), "job"),
        (replace(REQUEST, dtype="float16"), "dtype"),
        (replace(REQUEST, policy=ModelRef("", "")), "policy.uri"),
        (replace(REQUEST, unchecked=replace(CHUNK, prompts=[], seeds=[])), "prompt_ids"),
        (replace(REQUEST, unchecked=replace(CHUNK, prompts=[np.array([], np.int32)] * 2)), "prompt_ids"),
        (replace(REQUEST, unchecked=replace(CHUNK, seeds=[1])), "seeds"),
        (sampling(max_new_tokens=0), "sampling.max_new_tokens"),
        (sampling(temperature=0.0), "sampling.temperature"),
        (sampling(temperature=float("nan")), "sampling.temperature"),
        (sampling(eos_token_ids=()), "sampling.eos_token_ids"),
        (sampling(eos_token_ids=(40,)), "sampling.eos_token_ids"),
        (sampling(max_new_tokens=63), "prompt_ids"),
        (replace(REQUEST, unchecked=replace(CHUNK, prompts=[np.array([40], np.int32)] * 2)), "prompt_ids"),
        (replace(REQUEST, unchecked=replace(CHUNK, prompts=[np.array([-1], np.int32)] * 2)), "prompt_ids"),
    ],
)  # fmt: skip
def test_a_wrong_request_is_refused_by_the_name_of_its_field(tmp_path: Path, request_: Request, where: str) -> None:
    folder = save_tiny_model(tmp_path / "m")
    service = GenerationService(TransformersEngine(lambda uri, digest: folder, device="cpu", queue_size=1))

    with pytest.raises(InvalidInput) as caught:
        asyncio.run(service.generate(request_))

    assert [violation.field for violation in caught.value.violations][:1] == [where]


@pytest.mark.usefixtures("quick_rereads")
def test_a_policy_is_pulled_from_the_store_and_its_digest_is_checked(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = upload_folder(store, "p/1", save_tiny_model(tmp_path / "m"))
    cache = FolderCache(store, tmp_path / "cache", 1 << 30)
    service = GenerationService(TransformersEngine(cache.fetch, device="cpu", queue_size=1))

    def asking_for(uri: str, digest: str) -> Request:
        return replace(REQUEST, policy=ModelRef(uri, digest, 1))

    result = asyncio.run(service.generate(asking_for("store:p/1", digest)))

    assert len(result.completions) == 2
    assert result.compute_seconds > 0
    with pytest.raises(Corrupt):
        asyncio.run(service.generate(asking_for("store:p/1", "0" * 64)))
    with pytest.raises(NotFound):
        asyncio.run(service.generate(asking_for("store:p/2", "0" * 64)))


def test_a_full_queue_refuses_at_once() -> None:
    release = threading.Event()

    class BlockedEngine(FakeEngine):
        def sample(self, chunk: Chunk) -> list[Completion]:
            assert release.wait(timeout=10)
            return []

    async def scenario() -> int:
        service = GenerationService(BlockedEngine(queue_size=1))
        calls = [asyncio.ensure_future(service.generate(REQUEST)) for _ in range(5)]
        await asyncio.sleep(0.05)
        release.set()
        results = await asyncio.gather(*calls, return_exceptions=True)
        return sum(isinstance(result, Overloaded) for result in results)

    assert asyncio.run(scenario()) == 3


def test_the_fake_needs_no_store() -> None:
    config = ProcessConfig.model_validate({"generation": {"engine": "fake", "fake_latency": 0.01, "job_slots": 3}})

    def no_store(uri: str, digest: str) -> Path:
        raise AssertionError("the fake must not fetch")

    service = GenerationService(make_engine(config, no_store))
    result = asyncio.run(service.generate(REQUEST))

    assert result.compute_seconds >= 0.01
    assert service.capabilities().job_slots == 3
