import numpy as np
import pytest
import torch
from tests.unit.models.tiny_models import ARCHITECTURES, tiny_model

from quatrain.models.logprobs import completion_logprobs, head_logprobs
from quatrain.models.output_head import OutputHead, output_head
from quatrain.models.scores import last_token_scores
from quatrain.models.sequences import (
    by_token_budget,
    completion_hidden_states,
    completion_positions,
    completion_targets,
    pad_completions,
    score_head,
)

GENERATOR = np.random.default_rng(7)
PROMPTS = [GENERATOR.integers(0, 40, size).astype(np.int32) for size in (1, 5, 9, 2, 7)]
COMPLETIONS = [GENERATOR.integers(0, 40, size).astype(np.int32) for size in (3, 0, 12, 1, 8)]


def plain_logprobs(
    model: torch.nn.Module, prompt: np.ndarray, completion: np.ndarray, temperature: float
) -> np.ndarray:
    """One row alone, no padding, one forward pass over everything."""
    ids = torch.tensor(np.concatenate([prompt, completion]), dtype=torch.long)
    with torch.no_grad():
        table = torch.log_softmax(model(input_ids=ids[None]).logits[0].float() / temperature, dim=-1)
    start = len(prompt) - 1
    return np.array([table[start + t, token] for t, token in enumerate(completion)], dtype=np.float32)


@pytest.mark.parametrize("kind", ARCHITECTURES)
@pytest.mark.parametrize("budget", [1, 24, 10_000])
def test_ragged_rows_equal_a_plain_forward_pass(kind: str, budget: int) -> None:
    model = tiny_model(kind)

    got = completion_logprobs(model, PROMPTS, COMPLETIONS, temperature=0.7, token_budget=budget)

    for row, prompt, completion in zip(got, PROMPTS, COMPLETIONS, strict=True):
        assert row.dtype == np.float32
        np.testing.assert_allclose(row, plain_logprobs(model, prompt, completion, 0.7), atol=1e-5, rtol=0)


def test_entropy_of_a_uniform_model_is_the_log_of_the_vocabulary() -> None:
    model = tiny_model()
    torch.nn.init.zeros_(output_head(model).weight)

    batch = pad_completions(PROMPTS, COMPLETIONS)

    logprobs, entropies = head_logprobs(
        completion_hidden_states(model, batch), output_head(model), completion_targets(batch), temperature=1.0
    )

    np.testing.assert_allclose(entropies.detach().numpy(), np.log(40), rtol=1e-6)
    np.testing.assert_allclose(logprobs.detach().numpy(), -np.log(40), rtol=1e-6)


def test_chunks_change_neither_values_nor_gradients() -> None:
    torch.manual_seed(3)
    head = torch.nn.Linear(8, 11, bias=False, dtype=torch.float32)
    targets = torch.randint(0, 11, (10,))
    results = []
    for chunk in (3, 100):
        hidden = torch.linspace(-1, 1, 80).reshape(10, 8).requires_grad_()
        logprobs, entropy = head_logprobs(hidden, OutputHead(head), targets, temperature=1.3, chunk=chunk)
        head.zero_grad()
        torch.autograd.backward(logprobs.sum() + 0.1 * entropy.sum())
        assert hidden.grad is not None
        assert head.weight.grad is not None
        results.append((logprobs.detach(), entropy.detach(), hidden.grad, head.weight.grad.clone()))

    for small, whole in zip(*results, strict=True):
        torch.testing.assert_close(small, whole)


def test_completion_positions_point_one_before_each_token() -> None:
    batch = pad_completions([np.array([4, 5]), np.array([6])], [np.array([7]), np.array([8, 9, 0])])

    rows, positions = completion_positions(batch)

    assert rows.tolist() == [0, 1, 1, 1]
    assert positions.tolist() == [1, 0, 1, 2]
    assert completion_targets(batch).tolist() == [7, 8, 9, 0]


def test_scores_do_not_depend_on_padding_or_on_the_ids_at_the_end() -> None:
    model = tiny_model("reward")
    rows = [np.concatenate([p, c]) for p, c in zip(PROMPTS, COMPLETIONS, strict=True)] + [np.array([3, 0, 0])]

    together = last_token_scores(model, rows, token_budget=10_000)

    with torch.no_grad():
        model.config.pad_token_id = None
        alone = [
            score_head(model)(model.base_model(torch.tensor(row[None].astype(np.int64))).last_hidden_state[0, -1])
            for row in rows
        ]
    np.testing.assert_allclose(together, torch.cat(alone).numpy(), atol=1e-5)


def test_token_budget_bounds_padded_tokens_and_keeps_every_row_once() -> None:
    lengths = [5, 1, 9, 9, 2, 30, 1, 4]

    groups = by_token_budget(lengths, 18)

    assert sorted(index for group in groups for index in group) == list(range(8))
    assert groups[0] == [5]
    assert all(len(group) * max(lengths[i] for i in group) <= 18 for group in groups[1:])
    assert groups == by_token_budget(lengths, 18)
    with pytest.raises(ValueError, match="budget"):
        by_token_budget(lengths, 0)
