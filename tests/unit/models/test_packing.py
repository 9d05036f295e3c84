import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import ARCHITECTURES, VOCABULARY, tiny_model
from transformers import MistralConfig, MistralForCausalLM

from quatrain.models.packing import can_pack, packed_hidden_states
from quatrain.models.sequences import hidden_states, pad_right

LENGTHS = [9, 7, 7, 3, 1]


def rows() -> list[np.ndarray]:
    draw = np.random.default_rng(0)
    return [draw.integers(0, VOCABULARY, length).astype(np.int32) for length in LENGTHS]


@pytest.mark.parametrize("kind", ARCHITECTURES)
@torch.no_grad()
def test_packed_rows_have_the_hidden_states_of_the_rows_alone(kind: str) -> None:
    model = tiny_model(kind)

    found = hidden_states(model, pad_right(rows()))

    assert can_pack(model)
    for index, row in enumerate(rows()):
        alone = model.base_model(input_ids=torch.from_numpy(row.astype(np.int64))[None], use_cache=False)
        torch.testing.assert_close(found[index, : len(row)], alone.last_hidden_state[0], rtol=1e-5, atol=1e-5)


def test_gradients_equal_those_of_padded_rows() -> None:
    model, batch = tiny_model(), pad_right(rows())
    real_BT = torch.arange(batch.input_ids_BT.shape[1]) < batch.lengths_B[:, None]
    gradients = []
    for packs in (True, False):
        model.zero_grad()
        output = model.base_model(input_ids=batch.input_ids_BT, use_cache=False).last_hidden_state
        hidden_BTD = hidden_states(model, batch) if packs else output
        hidden_BTD[real_BT].square().sum().backward()
        named = model.base_model.named_parameters()
        gradients.append({name: value.grad.clone() for name, value in named if value.grad is not None})

    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        torch.testing.assert_close(gradient, gradients[1][name], rtol=1e-4, atol=1e-4, msg=name)


@torch.no_grad()
def test_what_stands_in_one_row_changes_no_other() -> None:
    model = tiny_model()
    ids_N = torch.from_numpy(np.concatenate(rows()).astype(np.int64))
    changed_N = ids_N.clone()
    changed_N[:9] = (changed_N[:9] + 1) % VOCABULARY

    before, after = (packed_hidden_states(model, ids, LENGTHS) for ids in (ids_N, changed_N))

    assert torch.equal(before[9:], after[9:])
    assert not torch.equal(before[:9], after[:9])


def test_a_window_over_the_past_is_left_to_padded_rows() -> None:
    config = MistralConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=2,
        sliding_window=4,
    )

    assert not can_pack(MistralForCausalLM(config))


def test_a_model_that_sees_more_than_its_lengths_is_left_to_padded_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model()
    # As of an architecture that does not hand keyword arguments on to its attention.
    plain = type(model.base_model).forward
    monkeypatch.setattr(
        type(model.base_model), "forward", lambda self, packed_lengths=None, **kwargs: plain(self, **kwargs)
    )

    assert not can_pack(model)
