"""Padded embeddings, soft caps and scales: one distribution for sampler and scorer, without ids that mean nothing."""

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from tests.unit.models.tiny_models import save_tiny_model, tiny_model
from tests.unit.text.folders import symbol_tokenizer

from quatrain.generation.engines.base import Chunk, Sampling
from quatrain.generation.engines.decoding import generate
from quatrain.models.loading import load_causal_lm
from quatrain.models.logprobs import completion_logprobs, head_logprobs
from quatrain.models.output_head import OutputHead, mark_absent_ids, output_head

PROMPT = np.array([1, 2], np.int32)


def padded_folder(folder: Path) -> tuple[Path, int]:
    """A model with more rows than its tokenizer has tokens, whose spare rows have the largest logits."""
    tokenizer = symbol_tokenizer()
    size = tokenizer.get_vocab_size()
    model = tiny_model(vocabulary=size + 5)
    with torch.no_grad():
        output_head(model).weight[size:] *= 5
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}', encoding="utf-8")
    return folder, size


def test_rows_beyond_the_tokenizer_are_never_sampled_and_have_no_probability(tmp_path: Path) -> None:
    folder, size = padded_folder(tmp_path / "m")
    model = load_causal_lm(folder)
    sampling = Sampling(8, 0.7, ignore_eos=True, eos_token_ids=())

    rows = generate(model, Chunk([PROMPT] * 200, list(range(200)), sampling))

    assert max(int(row.token_ids.max()) for row in rows) == size - 1
    plain = completion_logprobs(
        model, [PROMPT] * 200, [row.token_ids for row in rows], temperature=0.7, token_budget=4096
    )
    np.testing.assert_allclose(np.stack([row.logprobs for row in rows]), np.stack(plain), atol=1e-5)
    single = completion_logprobs(
        model, [PROMPT] * size, [np.array([token]) for token in range(size)], temperature=0.7, token_budget=4096
    )
    assert np.exp(np.concatenate(single)).sum() == pytest.approx(1.0, abs=1e-5)


def test_entropy_and_gradients_see_the_known_ids_only(tmp_path: Path) -> None:
    folder, size = padded_folder(tmp_path / "m")
    head = output_head(load_causal_lm(folder))
    hidden = torch.linspace(-1, 1, 64).reshape(2, 32).requires_grad_()

    logprobs, entropy = head_logprobs(hidden, head, torch.tensor([0, size - 1]), temperature=0.01)

    known = torch.log_softmax((hidden @ head.weight[:size].T) / 0.01, dim=-1)
    torch.testing.assert_close(entropy, -(known.exp() * known).sum(dim=-1), atol=1e-4, rtol=1e-4)
    torch.autograd.backward(logprobs.sum() + entropy.sum())
    assert hidden.grad is not None
    assert bool(torch.isfinite(hidden.grad).all())
    assert head.weight.grad is not None
    assert not head.weight.grad[size:].any()


def test_a_padded_model_is_saved_with_all_its_rows_and_nothing_else(tmp_path: Path) -> None:
    folder, _ = padded_folder(tmp_path / "m")

    load_causal_lm(folder).save_pretrained(tmp_path / "again")

    shapes = []
    for path in (folder, tmp_path / "again"):
        with safe_open(path / "model.safetensors", framework="pt") as file:
            shapes.append({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
    assert shapes[0] == shapes[1]


def test_without_padding_the_logits_keep_their_bits(tmp_path: Path) -> None:
    model = load_causal_lm(save_tiny_model(tmp_path / "m"))
    mark_absent_ids(model, range(40))
    head = output_head(model)
    hidden = torch.linspace(-1, 1, 64).reshape(2, 32)

    assert head.absent_V is None
    assert torch.equal(head.logits(hidden), head.layer(hidden))


def test_a_cap_comes_after_the_scale_and_before_the_temperature() -> None:
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float32)
    torch.nn.init.constant_(layer.weight, 8.0)

    logits = OutputHead(layer, scale=0.5, soft_cap=2.0).logits(torch.ones(1, 1), temperature=4.0)

    torch.testing.assert_close(logits, torch.tensor([[2 * np.tanh(8 * 0.5 / 2) / 4]], dtype=torch.float32))
