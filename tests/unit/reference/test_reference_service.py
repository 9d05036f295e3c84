"""Requests, models in memory and numbers, without gRPC."""

import asyncio
import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import save_tiny_model, tiny_model

from quatrain.errors import Corrupt, InvalidInput, RunFailed
from quatrain.reference.backends.base import Request, Rows
from quatrain.reference.backends.budget import MemoryBudget
from quatrain.reference.backends.fake import FakeBackend
from quatrain.reference.backends.transformers import TransformersBackend
from quatrain.reference.service import ReferenceService
from quatrain.refs import ModelRef
from quatrain.storage.folders import FolderCache, upload_folder
from quatrain.storage.memory import MemoryStore

GENERATOR = np.random.default_rng(5)
PROMPTS = [GENERATOR.integers(0, 40, size).astype(np.int32) for size in (3, 1, 8)]
COMPLETIONS = [GENERATOR.integers(0, 40, size).astype(np.int32) for size in (2, 9, 1)]
ROWS = Rows(PROMPTS, COMPLETIONS)
REQUEST = Request("job", ModelRef("store:m", "d"), ROWS, 0.8, "float32")


def rows(**changes: Any) -> Request:
    return replace(REQUEST, unchecked=replace(ROWS, **changes))


def service_of(folder: Path) -> ReferenceService:
    return ReferenceService(TransformersBackend(lambda uri, digest: folder, device="cpu", queue_size=2))


@pytest.mark.parametrize("kind", ["qwen2", "gpt2"])
def test_logprobs_equal_a_plain_forward_pass(tmp_path: Path, kind: str) -> None:
    service = service_of(save_tiny_model(tmp_path / "m", kind))

    result = asyncio.run(service.compute(REQUEST))

    model = tiny_model(kind)
    for prompt, completion, row in zip(PROMPTS, COMPLETIONS, result.logprobs, strict=True):
        ids = torch.tensor(np.concatenate([prompt, completion])[None], dtype=torch.long)
        with torch.no_grad():
            table = torch.log_softmax(model(input_ids=ids).logits[0] / 0.8, dim=-1)
        expected = [table[len(prompt) - 1 + t, token].item() for t, token in enumerate(completion)]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_the_fake_is_uniform_and_needs_no_store() -> None:
    result = asyncio.run(ReferenceService(FakeBackend()).compute(REQUEST))

    assert [len(row) for row in result.logprobs] == [2, 9, 1]
    np.testing.assert_allclose(np.concatenate(result.logprobs), -math.log(256), rtol=1e-6)


@pytest.mark.parametrize(
    ("request_", "where"),
    [
        (replace(REQUEST, job=""), "job"),
        (replace(REQUEST, model=ModelRef("", "")), "model.uri"),
        (replace(REQUEST, dtype="int8"), "dtype"),
        (replace(REQUEST, temperature=0.0), "temperature"),
        (replace(REQUEST, temperature=math.inf), "temperature"),
        (rows(prompts=[], completions=[]), "prompt_ids"),
        (rows(completions=COMPLETIONS[:2]), "completion_ids"),
        (rows(prompts=[np.array([], np.int32), *PROMPTS[1:]]), "prompt_ids"),
        (rows(completions=[np.array([40], np.int32), *COMPLETIONS[1:]]), "completion_ids"),
        (rows(prompts=[np.array([-3], np.int32), *PROMPTS[1:]]), "prompt_ids"),
        (rows(completions=[np.zeros(62, np.int32), *COMPLETIONS[1:]]), "completion_ids"),
    ],
)
def test_a_wrong_request_is_refused_by_the_name_of_its_field(tmp_path: Path, request_: Request, where: str) -> None:
    service = service_of(save_tiny_model(tmp_path / "m"))

    with pytest.raises(InvalidInput) as caught:
        asyncio.run(service.compute(request_))

    assert caught.value.violations[0].field == where


@pytest.mark.usefixtures("quick_rereads")
def test_a_model_is_pulled_from_the_store_and_its_digest_is_checked(tmp_path: Path) -> None:
    store = MemoryStore()
    digest = upload_folder(store, "models/x", save_tiny_model(tmp_path / "m"))
    cache = FolderCache(store, tmp_path / "cache", 1 << 30)
    service = ReferenceService(TransformersBackend(cache.fetch, device="cpu", queue_size=2))

    result = asyncio.run(service.compute(replace(REQUEST, model=ModelRef("store:models/x", digest))))

    assert len(result.logprobs) == 3
    with pytest.raises(Corrupt):
        asyncio.run(service.compute(replace(REQUEST, model=ModelRef("store:models/x", "0" * 64))))


def test_weights_that_are_not_finite_fail_clearly(tmp_path: Path) -> None:
    model = tiny_model()
    torch.nn.init.constant_(model.get_parameter("lm_head.weight"), math.nan)
    model.save_pretrained(tmp_path / "m")

    with pytest.raises(RunFailed, match="not finite"):
        asyncio.run(service_of(tmp_path / "m").compute(REQUEST))


@dataclass
class SizedModel:
    size_bytes: int = 100


@dataclass
class Loading:
    """Loads models of 100 bytes; remembers which."""

    loaded: list[str] = field(default_factory=list)

    def load(self, folder: Path, dtype: str) -> SizedModel:
        self.loaded.append(folder.name)
        return SizedModel()


def test_models_stay_while_the_budget_lasts_and_the_least_recently_used_goes_first(tmp_path: Path) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"x" * 100)
    loading = Loading()
    models = MemoryBudget(loading.load, lambda uri, digest: tmp_path / digest, memory_bytes=250)

    for name in ("a", "b", "a", "c", "a", "b"):
        models.get("job", ModelRef("store:x", name), "float32")

    assert loading.loaded == ["a", "b", "c", "b"]
