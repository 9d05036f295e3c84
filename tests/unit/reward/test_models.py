import asyncio
import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
import torch
from tests.unit.reward.scenery import LETTERS, batch, make_reward_model, make_tokenizer, sample
from transformers import AutoModelForSequenceClassification

from quatrain.errors import InvalidData, InvalidInput
from quatrain.jobspec.reward_section import ModelSource
from quatrain.reward.backends.models import ModelBackend, ModelSettings
from quatrain.reward.samples import Sample
from quatrain.storage.folders import FolderCache, upload_model_folder
from quatrain.storage.memory import MemoryStore

T = TypeVar("T")

SAMPLES = (sample("ab", "cd$"), sample("dca ", "a"), sample("b", "aaaaaaa$"))


def run(tmp_path: Path, work: Callable[[ModelBackend], Awaitable[T]], *, memory_bytes: int = 2**30) -> T:
    async def main() -> T:
        settings = ModelSettings(device="cpu", threads=1, memory_bytes=memory_bytes)
        backend = ModelBackend(FolderCache(MemoryStore(), tmp_path / "cache", 2**30), settings)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


def source(folder: Path, offset: float | None = None) -> ModelSource:
    return ModelSource(uri=folder.as_uri(), offset=offset)


def plain_score(folder: Path, ids: tuple[int, ...]) -> float:
    """What anybody gets who loads the folder and passes one unpadded row."""
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    model.config.pad_token_id = None  # transformers would take trailing ids that equal it for padding
    with torch.no_grad():
        return float(model(input_ids=torch.tensor([ids])).logits[0, 0])


def test_scores_are_those_of_a_plain_forward_of_each_row_alone(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")

    scores = run(tmp_path, lambda backend: backend.score(source(folder), batch(folder, *SAMPLES)))

    # Id 0, the pad id of the model, is the letter a and ends the second row.
    expected = [plain_score(folder, row.prompt_ids + row.completion_ids) for row in SAMPLES]
    assert scores.values == pytest.approx(expected, abs=1e-5)
    assert scores.terms == {"model": scores.values}
    assert (scores.offset, scores.refused) == (0.0, {})


def test_a_row_has_the_same_score_whatever_else_is_in_the_call(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")

    async def work(backend: ModelBackend) -> tuple[list[float | None], list[float | None]]:
        alone = [(await backend.score(source(folder), batch(folder, row))).values[0] for row in SAMPLES]
        return alone, list((await backend.score(source(folder), batch(folder, *reversed(SAMPLES)))).values)

    alone, together = run(tmp_path, work)
    assert together[::-1] == pytest.approx(alone, abs=1e-5)


def test_the_offset_beside_the_model_applies_unless_another_one_is_given(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model", offset=0.75)

    async def work(backend: ModelBackend) -> list[float]:
        sources = (source(folder), source(folder, 0.0), source(folder, -2.0))
        return [(await backend.score(one, batch(folder, SAMPLES[0]))).offset for one in sources]

    assert run(tmp_path, work) == [0.75, 0.0, -2.0]


def test_another_tokenizer_gets_text_and_its_own_end(tmp_path: Path) -> None:
    policy = make_tokenizer(tmp_path / "policy")
    reversed_letters = [*LETTERS[4::-1], "e", "<eos>"]
    folder = make_reward_model(tmp_path / "model", tokens=reversed_letters)

    def translated(row: Sample) -> tuple[int, ...]:
        text = str(row.prompt) + row.completion
        end = (reversed_letters.index("<eos>"),) if row.finish_reason == "stop" else ()
        return tuple(reversed_letters.index(letter) for letter in text) + end

    scores = run(tmp_path, lambda backend: backend.score(source(folder), batch(policy, *SAMPLES)))

    expected = [plain_score(folder, translated(row)) for row in SAMPLES]
    assert scores.values == pytest.approx(expected, abs=1e-5)


def test_messages_go_through_the_reward_models_own_template(tmp_path: Path) -> None:
    policy = make_tokenizer(tmp_path / "policy")
    letters = [*LETTERS[:5], "[", "]", "<eos>"]
    folder = make_reward_model(tmp_path / "model", tokens=letters)
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}"
    config = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps({**config, "chat_template": template}))
    messages = sample([{"role": "user", "content": "ab"}, {"role": "user", "content": "c"}], "d")

    scores = run(tmp_path, lambda backend: backend.score(source(folder), batch(policy, messages)))

    expected = plain_score(folder, tuple(letters.index(letter) for letter in "[ab][c]d"))
    assert scores.values[0] == pytest.approx(expected, abs=1e-5)


def test_a_sample_that_is_too_long_for_the_model_is_refused_and_no_other(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")

    samples = batch(folder, sample("a" * 30, "bbb"), sample("a" * 30, "bb"))
    scores = run(tmp_path, lambda backend: backend.score(source(folder), samples))

    assert scores.refused == {0: "model: 33 tokens, and the reward model reads at most 32"}
    assert scores.values[0] is None
    assert scores.values[1] is not None


def test_the_least_recently_used_model_makes_room(tmp_path: Path) -> None:
    folders = [make_reward_model(tmp_path / f"model-{index}", seed=index) for index in range(3)]
    size = sum(file.stat().st_size for file in folders[0].glob("*.safetensors"))

    async def work(backend: ModelBackend) -> list[str]:
        for index in (0, 1, 0, 2):
            await backend.score(source(folders[index]), batch(folders[index], SAMPLES[0]))
        return backend.loaded

    loaded = run(tmp_path, work, memory_bytes=int(2.5 * size))

    assert loaded == [folders[0].as_uri(), folders[2].as_uri()]


def test_a_model_over_the_budget_is_refused_with_the_numbers(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")

    with pytest.raises(InvalidInput, match=r"budget of 1,000; raise reward\.memory_bytes"):
        run(tmp_path, lambda backend: backend.score(source(folder), batch(folder, SAMPLES[0])), memory_bytes=1000)


def test_a_broken_offset_file_is_named(tmp_path: Path) -> None:
    folder = make_reward_model(tmp_path / "model")
    (folder / "quatrain.json").write_text('{"offset": "much"}')

    with pytest.raises(InvalidData, match=r"quatrain\.json"):
        run(tmp_path, lambda backend: backend.score(source(folder), batch(folder, SAMPLES[0])))


def test_a_model_comes_from_the_store_by_digest(tmp_path: Path) -> None:
    store = MemoryStore()
    folder = make_reward_model(tmp_path / "model")
    stored = upload_model_folder(store, folder)
    by_digest = ModelSource(uri=stored.uri, digest=stored.digest)

    async def main() -> tuple[float | None, str]:
        backend = ModelBackend(FolderCache(store, tmp_path / "cache", 2**30), ModelSettings(device="cpu", threads=1))
        scores = await backend.score(by_digest, batch(folder, SAMPLES[0]))
        await backend.close()
        return scores.values[0], scores.version

    value, version = asyncio.run(main())

    assert value == pytest.approx(plain_score(folder, SAMPLES[0].prompt_ids + SAMPLES[0].completion_ids), abs=1e-5)
    assert version == stored.digest
