import json
from pathlib import Path

import pytest
import torch
from tests.closed_form.models import TinyModel, build
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from quatrain.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("model"), TinyModel(6, eos_id=5, pad_id=2))


def test_model_is_small_untied_and_uniform(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)

    logits = model(input_ids=torch.tensor([[0, 5, 2, 1]])).logits

    assert (model.config.num_hidden_layers, model.config.hidden_size, model.config.vocab_size) == (2, 32, 6)
    assert model.get_input_embeddings().weight is not model.lm_head.weight
    assert logits.shape == (1, 4, 6)
    assert logits.eq(0).all()


def test_a_zero_head_still_learns(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)

    loss = -torch.log_softmax(model(input_ids=torch.tensor([[0, 1]])).logits[0, -1], -1)[3]
    (gradient,) = torch.autograd.grad(loss, [model.lm_head.weight])

    assert gradient.abs().max() > 0.01


def test_end_and_padding_are_ordinary_symbols(folder: Path) -> None:
    ours = Tokenizer.load(folder)
    # Not AutoTokenizer: for this model type it takes Qwen's class, which reads any vocabulary as byte-level pairs.
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)

    assert ours.encode("s0 s5 s2 s1") == theirs("s0 s5 s2 s1", add_special_tokens=False)["input_ids"] == [0, 5, 2, 1]
    assert (ours.vocab_size, len(theirs)) == (6, 6)
    assert (ours.eos_token_ids, theirs.eos_token_id, theirs.pad_token_id) == ((5,), 5, 2)
    assert json.loads((folder / "generation_config.json").read_text())["eos_token_id"] == 5


def test_weights_are_safetensors_and_repeatable(folder: Path, tmp_path: Path) -> None:
    again = build(tmp_path / "again", TinyModel(6, eos_id=5, pad_id=2))

    names = sorted(path.name for path in folder.iterdir())
    assert "model.safetensors" in names
    assert names == sorted(path.name for path in again.iterdir())
    assert all((folder / name).read_bytes() == (again / name).read_bytes() for name in names)


def test_ids_must_be_symbols(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not among"):
        build(tmp_path, TinyModel(3, eos_id=3))
