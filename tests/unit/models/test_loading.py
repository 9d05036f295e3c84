import json
import re
from pathlib import Path

import pytest
import torch
from tests.unit.models.tiny_models import ARCHITECTURES, save_tiny_model, tiny_model

from quatrain.errors import Corrupt, InvalidData
from quatrain.models.loading import (
    copy_weights,
    load_causal_lm,
    load_sequence_classifier,
    vocabulary_and_positions,
)
from quatrain.models.output_head import output_head
from quatrain.models.sequences import score_head


@pytest.mark.parametrize("kind", ARCHITECTURES)
def test_a_saved_model_comes_back_in_eval_mode_without_dropout(tmp_path: Path, kind: str) -> None:
    save_tiny_model(tmp_path / "m", kind)

    model = load_causal_lm(tmp_path / "m")

    ids = torch.tensor([[1, 2, 3]])
    expected = tiny_model(kind)(input_ids=ids).logits
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    model.train()
    torch.testing.assert_close(model(input_ids=ids).logits, expected)
    assert vocabulary_and_positions(model) == (40, 64)


def test_bfloat16_is_loaded_as_asked(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "m")

    assert load_causal_lm(tmp_path / "m", dtype="bfloat16").dtype == torch.bfloat16


def test_a_pickle_is_refused_by_name(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(InvalidData, match=r"pytorch_model\.bin is a pickle"):
        load_causal_lm(folder)


def test_truncated_weights_are_corrupt(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m")
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])

    with pytest.raises(Corrupt, match="cannot be read"):
        load_causal_lm(folder)
    with pytest.raises(Corrupt, match="cannot be read"):
        copy_weights(tiny_model(), folder)


def test_an_empty_folder_and_an_unknown_architecture_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=re.escape("no config.json")):
        load_causal_lm(tmp_path)
    folder = save_tiny_model(tmp_path / "m")
    (folder / "config.json").write_text(json.dumps({"model_type": "nonesuch"}))
    with pytest.raises(InvalidData, match="nonesuch"):
        load_causal_lm(folder)


def test_a_missing_tensor_is_named_instead_of_being_drawn_at_random(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m")
    config = json.loads((folder / "config.json").read_text())
    config["num_hidden_layers"] = 3
    config["layer_types"] = ["full_attention"] * 3
    (folder / "config.json").write_text(json.dumps(config))

    with pytest.raises(InvalidData, match=r"lack model\.layers\.2"):
        load_causal_lm(folder)


def test_a_reward_model_needs_its_head_unless_a_new_one_is_asked_for(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "m")

    with pytest.raises(InvalidData, match=r"score\.weight"):
        load_sequence_classifier(folder)
    first = load_sequence_classifier(folder, new_head_seed=5)
    again = load_sequence_classifier(folder, new_head_seed=5)

    head = score_head(first)
    assert torch.equal(head.weight, score_head(again).weight)
    assert head.weight.std().item() == pytest.approx(33**-0.5, rel=0.4)
    assert head.bias is None


def test_copy_weights_equals_a_load(tmp_path: Path) -> None:
    for tied in (False, True):
        model = load_causal_lm(save_tiny_model(tmp_path / f"a{tied}", seed=1, tied=tied))
        folder = save_tiny_model(tmp_path / f"b{tied}", seed=2, tied=tied)

        assert copy_weights(model, folder)

        ids = torch.tensor([[1, 2, 3]])
        torch.testing.assert_close(model(input_ids=ids).logits, tiny_model(seed=2, tied=tied)(input_ids=ids).logits)


def test_copy_weights_leaves_a_model_of_another_shape_alone(tmp_path: Path) -> None:
    model = tiny_model(seed=1)
    weight = output_head(model).weight
    before = weight.detach().clone()

    assert not copy_weights(model, save_tiny_model(tmp_path / "g", "gpt2"))
    assert not copy_weights(model, save_tiny_model(tmp_path / "v", vocabulary=41))
    assert torch.equal(weight, before)
