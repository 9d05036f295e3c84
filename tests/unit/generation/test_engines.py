"""What every engine does, and what is special about each."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.config import ProcessConfig
from quatrain.config.schema import GenerationConfig
from quatrain.errors import InvalidData, InvalidInput, Unavailable
from quatrain.generation.engines import make_engine
from quatrain.generation.engines.base import Chunk, Completion, Engine, Request, Sampling
from quatrain.generation.engines.transformers import TransformersEngine
from quatrain.refs import ModelRef

PROMPTS = [np.array([1, 2, 9], np.int32), np.array([4], np.int32), np.array([7, 7], np.int32)]
ENDING = Sampling(10, 1.0, ignore_eos=False, eos_token_ids=(3, 9))
NAMES = get_args(GenerationConfig.model_fields["engine"].annotation)


def engine_of(name: str, folder: Path) -> Engine:
    """The engine of this name, all of whose policies are a tiny model."""
    config = {"compute": {"device": "cpu"}, "generation": {"engine": name, "job_slots": 3}}
    save_tiny_model(folder)
    return make_engine(ProcessConfig.model_validate(config), lambda uri, digest: folder)


def request(chunk: Chunk) -> Request:
    return Request("job", ModelRef("store:p/1", "d1", 1), chunk, "float32")


def sample(engine: Engine, chunk: Chunk) -> list[Completion]:
    return asyncio.run(engine.generate(request(chunk))).completions


@pytest.mark.parametrize("name", NAMES)
def test_engines_keep_the_contract(name: str, tmp_path: Path) -> None:
    engine = engine_of(name, tmp_path / "m")
    chunk = Chunk(PROMPTS * 20, list(range(60)), ENDING)

    completions = sample(engine, chunk)
    again = sample(engine, chunk)

    assert engine.capabilities().engine == name
    assert engine.capabilities().exact_logprobs
    assert engine.capabilities().job_slots == 3
    for row, twin in zip(completions, again, strict=True):
        assert np.array_equal(row.token_ids, twin.token_ids)
        assert len(row.token_ids) == len(row.logprobs) <= 10
        assert (row.logprobs <= 0).all()
        assert (row.finish_reason == "stop") == bool(row.token_ids[-1] in (3, 9))
    assert {row.finish_reason for row in completions} == {"stop", "length"}
    ignoring = sample(engine, Chunk(PROMPTS, [1, 2, 3], Sampling(5, 1.0, ignore_eos=True, eos_token_ids=(9,))))
    assert [len(row.token_ids) for row in ignoring] == [5, 5, 5]


@pytest.mark.parametrize("name", NAMES)
def test_chunks_in_flight_together_do_not_notice_each_other(name: str, tmp_path: Path) -> None:
    engine = engine_of(name, tmp_path / "m")
    chunks = [Chunk(PROMPTS, [seed, seed + 1, seed + 2], ENDING) for seed in range(4)]
    alone = [sample(engine, chunk) for chunk in chunks]
    wrong = Chunk([np.array([-1], np.int32)], [1], ENDING)

    async def scenario() -> None:
        calls = [asyncio.ensure_future(engine.generate(request(chunk))) for chunk in (*chunks, chunks[0], wrong)]
        await asyncio.sleep(0)
        calls[4].cancel()
        *results, cancelled, refused = await asyncio.gather(*calls, return_exceptions=True)
        for result, expected in zip(results, alone, strict=True):
            assert not isinstance(result, BaseException)
            assert result.compute_seconds > 0
            assert [row.token_ids.tolist() for row in result.completions] == [r.token_ids.tolist() for r in expected]
        assert isinstance(cancelled, asyncio.CancelledError)
        assert isinstance(refused, InvalidInput)
        await engine.close()
        with pytest.raises(Unavailable):
            await engine.generate(request(chunks[0]))

    asyncio.run(scenario())


def test_the_fake_speaks_only_ids_of_its_prompt_and_is_exact_about_their_probability(tmp_path: Path) -> None:
    prompt = np.array([5, 6, 6], np.int32)
    rows = sample(engine_of("fake", tmp_path), Chunk([prompt] * 400, list(range(400)), Sampling(1, 1.0, False, (2,))))

    ended = sum(row.finish_reason == "stop" for row in rows)

    assert {int(row.token_ids[0]) for row in rows} == {2, 5, 6}
    assert ended == pytest.approx(50, abs=20)
    for row in rows:
        assert np.exp(row.logprobs[0]) == pytest.approx(1 / 8 if row.token_ids[0] == 2 else 7 / 16)


def test_a_process_with_the_fake_engine_never_imports_torch() -> None:
    code = "import sys, quatrain.generation.__main__; sys.exit('torch' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], env=environment(), timeout=60, check=False).returncode == 0


def environment() -> dict[str, str]:
    """Of a process that finds the packages where this one does."""
    return {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}


def transformers_engine() -> TransformersEngine:
    return TransformersEngine(lambda uri, digest: Path(), device="cpu")


def test_new_weights_of_the_same_shape_go_into_the_old_module(tmp_path: Path) -> None:
    engine = transformers_engine()
    chunk = Chunk(PROMPTS, [1, 2, 3], ENDING)
    first = engine.load(save_tiny_model(tmp_path / "a", seed=1), "float32", None)
    before = first.generate(chunk)
    folder = save_tiny_model(tmp_path / "b", seed=2)

    second = engine.load(folder, "float32", first)
    fresh = engine.load(folder, "float32", None)

    assert second is first
    assert fresh is not first
    swapped, expected = second.generate(chunk), fresh.generate(chunk)
    assert [row.token_ids.tolist() for row in swapped] == [row.token_ids.tolist() for row in expected]
    assert [row.logprobs.tolist() for row in swapped] == [row.logprobs.tolist() for row in expected]
    assert [row.token_ids.tolist() for row in swapped] != [row.token_ids.tolist() for row in before]


def test_another_shape_or_dtype_is_loaded_anew(tmp_path: Path) -> None:
    engine = transformers_engine()
    first = engine.load(save_tiny_model(tmp_path / "a"), "float32", None)

    assert engine.load(save_tiny_model(tmp_path / "b", vocabulary=50), "float32", first) is not first
    brain = engine.load(tmp_path / "a", "bfloat16", first)

    assert brain.model.dtype == torch.bfloat16
    assert len(brain.generate(Chunk(PROMPTS, [1, 2, 3], ENDING))) == 3


def test_a_model_that_keeps_more_than_keys_and_values_is_refused(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "m")

    with pytest.raises(InvalidData, match="Mamba"):
        transformers_engine().load(tmp_path / "m", "float32", None)
