"""What every engine does, and what is special about each."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import save_tiny_model
from transformers import MistralConfig, MistralForCausalLM

from quatrain.errors import InvalidData
from quatrain.generation.engines import make_engine
from quatrain.generation.engines.base import Chunk, Engine, Sampling
from quatrain.generation.engines.transformers import TransformersPolicy

PROMPTS = [np.array([1, 2, 9], np.int32), np.array([4], np.int32), np.array([7, 7], np.int32)]
ENDING = Sampling(10, 1.0, ignore_eos=False, eos_token_ids=(3, 9))


def engine_of(name: str) -> Engine:
    return make_engine(name, device="cpu", threads=0, fake_latency=0.0)


@pytest.mark.parametrize("name", ["fake", "transformers"])
def test_engines_keep_the_contract(name: str, tmp_path: Path) -> None:
    engine = engine_of(name)
    policy = engine.load(save_tiny_model(tmp_path / "m") if engine.needs_weights else None, "float32", None)
    chunk = Chunk(PROMPTS * 20, list(range(60)), ENDING)

    completions = policy.generate(chunk)
    again = policy.generate(chunk)

    assert engine.name == name
    assert engine.exact_logprobs
    for row, twin in zip(completions, again, strict=True):
        assert np.array_equal(row.token_ids, twin.token_ids)
        assert len(row.token_ids) == len(row.logprobs) <= 10
        assert (row.logprobs <= 0).all()
        assert (row.finish_reason == "stop") == bool(row.token_ids[-1] in (3, 9))
    assert {row.finish_reason for row in completions} == {"stop", "length"}
    ignoring = policy.generate(Chunk(PROMPTS, [1, 2, 3], Sampling(5, 1.0, ignore_eos=True, eos_token_ids=(9,))))
    assert [len(row.token_ids) for row in ignoring] == [5, 5, 5]


def test_the_fake_speaks_only_ids_of_its_prompt_and_is_exact_about_their_probability() -> None:
    policy = engine_of("fake").load(None, "float32", None)
    prompt = np.array([5, 6, 6], np.int32)
    rows = policy.generate(Chunk([prompt] * 400, list(range(400)), Sampling(1, 1.0, False, (2,))))

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


def test_new_weights_of_the_same_shape_go_into_the_old_module(tmp_path: Path) -> None:
    engine = engine_of("transformers")
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
    engine = engine_of("transformers")
    first = engine.load(save_tiny_model(tmp_path / "a"), "float32", None)

    assert engine.load(save_tiny_model(tmp_path / "b", vocabulary=50), "float32", first) is not first
    brain = engine.load(tmp_path / "a", "bfloat16", first)

    assert isinstance(brain, TransformersPolicy)
    assert brain.model.dtype == torch.bfloat16
    assert len(brain.generate(Chunk(PROMPTS, [1, 2, 3], ENDING))) == 3


def test_a_sliding_window_bounds_the_positions(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = MistralConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=1,
        intermediate_size=16, max_position_embeddings=64, sliding_window=8, bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    MistralForCausalLM(config).save_pretrained(tmp_path / "m")

    assert engine_of("transformers").load(tmp_path / "m", "float32", None).limits.positions == 8


def test_a_model_that_keeps_more_than_keys_and_values_is_refused(tmp_path: Path) -> None:
    from transformers import MambaConfig, MambaForCausalLM

    torch.manual_seed(0)
    config = MambaConfig(vocab_size=20, hidden_size=16, num_hidden_layers=1, state_size=4)
    MambaForCausalLM(config).save_pretrained(tmp_path / "m")

    with pytest.raises(InvalidData, match="Mamba"):
        engine_of("transformers").load(tmp_path / "m", "float32", None)
