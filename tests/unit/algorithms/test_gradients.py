"""What the gradient of a minibatch must not depend on, and what it must be at the first update."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from tests.unit.algorithms.ragged import Ragged, ragged_batches
from torch import Tensor

from quatrain.algorithms.logprobs import entropy, token_logprobs
from quatrain.algorithms.losses import (
    PolicySums,
    entropy_sum,
    importance_weights,
    kl_loss_sum,
    policy_loss_sum,
    value_loss_sum,
)
from quatrain.algorithms.whitening import whiten

BATCH = Ragged(lengths=[1, 6, 2, 5, 3, 7, 1, 4], seed=3)
VOCABULARY = 5


class TinyPolicy(torch.nn.Module):
    """Next-symbol logits and a value from a recurrent state: later positions depend on earlier ones."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embed = torch.nn.Embedding(VOCABULARY, 6, dtype=torch.float64)
        self.cell = torch.nn.GRU(6, 6, batch_first=True, dtype=torch.float64)
        self.head = torch.nn.Linear(6, VOCABULARY + 1, dtype=torch.float64)

    def forward(self, ids_BT: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.cat([torch.zeros_like(ids_BT[:, :1]), ids_BT[:, :-1]], dim=1)
        out = self.head(self.cell(self.embed(before))[0])
        return out[..., :VOCABULARY], out[..., VOCABULARY]


def loss_of(model: TinyPolicy, ids: Tensor, rows: list[int]) -> Tensor:
    """The whole loss of some rows, as a sum over their tokens; the rows are cut to the longest among them."""
    width = max(BATCH.lengths[row] for row in rows)
    mask = BATCH.mask[rows, :width]
    old, sampler, ref, advantages, values, returns = (BATCH.draw(n, 0.5)[rows, :width] for n in range(6))
    logits, new_values = model(ids[rows, :width])
    new = token_logprobs(logits, ids[rows, :width], 0.7)
    old, sampler, ref = new.detach() + 0.3 * old, new.detach() + 0.3 * sampler, new.detach() + ref
    weights = importance_weights(old, sampler, 2.0)
    policy, _ = policy_loss_sum(new, old, advantages, weights, mask, 0.2, 0.2)
    value, _ = value_loss_sum(new_values, values, returns, mask, 0.2)
    kl = kl_loss_sum(new, old, ref, weights, mask)
    return policy + value + 0.1 * kl - 0.01 * entropy_sum(entropy(logits, 0.7), mask)


def gradient(model: TinyPolicy, minibatch: list[list[int]], ids: Tensor) -> Tensor:
    """Accumulate over microbatches, each divided by the tokens of the whole minibatch."""
    model.zero_grad()
    tokens = sum(BATCH.lengths[row] for rows in minibatch for row in rows)
    for rows in minibatch:
        torch.autograd.backward(loss_of(model, ids, rows) / tokens)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).clone()


@pytest.fixture
def ids() -> Tensor:
    return torch.randint(0, VOCABULARY, BATCH.mask.shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("size", [1, 2, 4, 8])
def test_gradient_does_not_depend_on_the_microbatch_split(size: int, ids: Tensor) -> None:
    model = TinyPolicy(0)
    rows = list(range(8))

    split = gradient(model, [rows[start : start + size] for start in range(0, 8, size)], ids)

    torch.testing.assert_close(split, gradient(model, [rows], ids), rtol=1e-6, atol=1e-12)


def test_two_ranks_with_unequal_lengths_give_the_gradient_of_one(ids: Tensor) -> None:
    model = TinyPolicy(0)
    short, long = [0, 2, 6, 4], [1, 3, 5, 7]
    tokens = sum(BATCH.lengths)

    by_rank = []
    for rows in (short, long):
        model.zero_grad()
        torch.autograd.backward(loss_of(model, ids, rows) / tokens)
        by_rank.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))

    torch.testing.assert_close(by_rank[0] + by_rank[1], gradient(model, [short + long], ids), rtol=1e-6, atol=1e-12)


def test_a_mean_of_means_would_be_another_gradient(ids: Tensor) -> None:
    """The guard above can fail: the usual mistake is far outside its tolerance."""
    model = TinyPolicy(0)
    model.zero_grad()
    for rows in ([0, 2, 6, 4], [1, 3, 5, 7]):
        torch.autograd.backward(loss_of(model, ids, rows) / sum(BATCH.lengths[row] for row in rows) / 2)
    wrong = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    assert (wrong - gradient(model, [list(range(8))], ids)).abs().max() > 1e-3


def test_statistics_add_up_over_microbatches() -> None:
    mask = BATCH.mask
    new, old, advantages = (BATCH.draw(n, 0.4) for n in range(3))

    def of(rows: slice) -> PolicySums:
        return policy_loss_sum(new[rows], old[rows], advantages[rows], None, mask[rows], 0.2, 0.2)[1]

    whole, parts = of(slice(None)), sum((of(slice(i, i + 2)) for i in range(0, 8, 2)), start=PolicySums())

    assert vars(parts) == pytest.approx(vars(whole), rel=1e-12)


def test_first_minibatch_is_reinforce(ids: Tensor) -> None:
    model = TinyPolicy(1)
    mask, advantages = BATCH.mask, whiten(BATCH.draw(9), BATCH.mask)
    new = token_logprobs(model(ids)[0], ids, 1.0)

    total, sums = policy_loss_sum(new, new.detach(), advantages, None, mask, 0.2, 0.2)
    clipped_gradient = torch.autograd.grad(total, list(model.head.parameters()), retain_graph=True)
    reinforce = -(advantages * torch.where(mask, new, 0.0)).sum()
    expected = torch.autograd.grad(reinforce, list(model.head.parameters()))

    assert (sums.clipped, sums.approx_kl) == (0.0, 0.0)
    assert (sums.ratio_min, sums.ratio_max) == (1.0, 1.0)
    for got, want in zip(clipped_gradient, expected, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_dual_clip_stops_the_gradient_of_a_huge_ratio() -> None:
    new = torch.tensor([[2.0]], requires_grad=True)
    arguments = (torch.zeros(1, 1), torch.tensor([[-1.0]]), None, torch.ones(1, 1, dtype=torch.bool), 0.2, 0.2)

    torch.autograd.backward(policy_loss_sum(new, *arguments, 3.0)[0])

    assert new.grad is not None
    assert new.grad.item() == 0.0


def test_a_weight_scales_its_token_only_and_not_the_statistics() -> None:
    new, old, advantages = torch.zeros(1, 2), torch.zeros(1, 2), torch.tensor([[1.0, -2.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)

    total, sums = policy_loss_sum(new, old, advantages, torch.tensor([[0.5, 2.0]]), mask, 0.2, 0.2)

    assert total.item() == -0.5 + 4.0
    assert (sums.tokens, sums.ratio) == (2, 2.0)


def _garbage_cases() -> list[Callable[[Tensor, Tensor], Tensor]]:
    def policy(new: Tensor, mask: Tensor) -> Tensor:
        others = (torch.full_like(new, torch.nan).where(~mask, torch.tensor(0.1, dtype=new.dtype)) for _ in range(3))
        old, advantages, weights = others
        return policy_loss_sum(new, old, advantages, weights, mask, 0.2, 0.2)[0]

    def value(new: Tensor, mask: Tensor) -> Tensor:
        rest = torch.full_like(new, torch.inf).where(~mask, torch.tensor(0.1, dtype=new.dtype))
        return value_loss_sum(new, rest, rest, mask, 0.2)[0]

    def kl(new: Tensor, mask: Tensor) -> Tensor:
        rest = torch.full_like(new, torch.nan).where(~mask, torch.tensor(0.1, dtype=new.dtype))
        return kl_loss_sum(new, rest, rest, rest, mask)

    return [policy, value, kl]


@settings(max_examples=10, deadline=None)
@given(ragged_batches)
def test_what_stands_after_the_end_reaches_neither_loss_nor_gradient(batch: Ragged) -> None:
    for case in _garbage_cases():
        dirty = batch.draw(1).requires_grad_()
        clean = torch.where(batch.mask, batch.draw(1), 0.0).requires_grad_()

        losses = [case(x, batch.mask) for x in (dirty, clean)]
        for loss in losses:
            torch.autograd.backward(loss)

        assert losses[0].item() == losses[1].item()
        assert dirty.grad is not None
        assert clean.grad is not None
        assert torch.equal(dirty.grad, clean.grad)
        assert dirty.grad[~batch.mask].eq(0).all()
