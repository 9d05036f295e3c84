"""Every formula against an independent loop over plain floats, to 1e-12, on any masked batch."""

import math
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.algorithms.ragged import Ragged, ragged_batches

from quatrain.algorithms.advantages import ESTIMATORS, EstimatorInputs, estimator_named, gae
from quatrain.algorithms.kl import k1, k2, k3, kl_reward
from quatrain.algorithms.logprobs import entropy, token_logprobs
from quatrain.algorithms.losses import (
    entropy_sum,
    importance_weights,
    kl_loss_sum,
    policy_loss_sum,
    value_loss_sum,
)
from quatrain.algorithms.sft import sft_loss_sum
from quatrain.algorithms.whitening import whiten
from quatrain.jobspec.sections import AdvantageSpec

quick = settings(max_examples=30, deadline=None)


def exactly(value: float | tuple[float, ...]) -> object:
    return pytest.approx(value, rel=1e-12, abs=1e-12)


def alone(x: torch.Tensor) -> torch.Tensor:
    """Groups of one sequence each."""
    return torch.arange(x.shape[0])


def bounded(x: float, low: float, high: float) -> float:
    return min(max(x, low), high)


@quick
@given(ragged_batches, st.floats(0.5, 1.0), st.floats(0.0, 1.0))
def test_gae_is_the_double_sum_of_its_definition(batch: Ragged, gamma: float, lam: float) -> None:
    rewards, values = batch.draw(1), batch.draw(2)

    estimate = gae(EstimatorInputs(rewards, values, batch.mask, alone(rewards), gamma, lam))

    advantages, returns = estimate.advantages_BT, estimate.returns_BT
    assert returns is not None
    for b, (r, v) in enumerate(zip(batch.rows(rewards), batch.rows(values), strict=True)):
        after = [*v[1:], 0.0]
        deltas = [r[t] + gamma * after[t] - v[t] for t in range(len(r))]
        for t in range(len(r)):
            expected = sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, len(r)))
            assert advantages[b, t].item() == exactly(expected)
            assert returns[b, t].item() == exactly(expected + v[t])
    assert advantages[~batch.mask].eq(0).all()
    assert returns[~batch.mask].eq(0).all()


def test_gae_by_hand() -> None:
    rewards = torch.tensor([[0.0, -1.0, 2.0]], dtype=torch.float64)
    values = torch.tensor([[0.5, 1.0, -0.5]], dtype=torch.float64)

    mask = torch.ones(1, 3, dtype=torch.bool)
    estimate = estimator_named("gae").estimate(EstimatorInputs(rewards, values, mask, alone(rewards), 1.0, 0.5))

    # d = (0.5, -2.5, 2.5); A_3 = 2.5, A_2 = -2.5 + 1.25, A_1 = 0.5 - 0.625.
    assert estimate.advantages_BT.tolist() == [[-0.125, -1.25, 2.5]]
    assert estimate.returns_BT is not None
    assert estimate.returns_BT.tolist() == [[0.375, -0.25, 2.0]]


def test_gae_without_values_is_refused() -> None:
    rewards = torch.zeros(1, 2)

    with pytest.raises(ValueError, match="critic"):
        gae(EstimatorInputs(rewards, None, torch.ones(1, 2, dtype=torch.bool), alone(rewards)))


def test_the_spec_names_the_estimators_of_the_table() -> None:
    assert get_args(AdvantageSpec.model_fields["estimator"].annotation) == tuple(ESTIMATORS)
    with pytest.raises(ValueError, match="one of gae"):
        estimator_named("grpo")


@quick
@given(ragged_batches)
def test_whitening(batch: Ragged) -> None:
    x = batch.draw(1, 3.0)

    white = whiten(x, batch.mask)

    real = [value for row in batch.rows(x) for value in row]
    if len(real) < 2:
        assert white.eq(0).all()
        return
    mean = math.fsum(real) / len(real)
    variance = math.fsum((value - mean) ** 2 for value in real) / (len(real) - 1)
    for row, got in zip(batch.rows(x), batch.rows(white), strict=True):
        for value, result in zip(row, got, strict=True):
            assert result == exactly((value - mean) / math.sqrt(variance + 1e-8))
    assert white[~batch.mask].eq(0).all()


def test_whitening_golden_numbers() -> None:
    x = torch.tensor([[1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2.0]], dtype=torch.float64)

    white = whiten(x, torch.ones_like(x, dtype=torch.bool)) + x.mean()

    assert white[0, :3].tolist() == pytest.approx([0.1394, 0.5046, 0.8697], abs=5e-5)


def test_whitening_a_large_offset_loses_nothing() -> None:
    x = 1e8 + torch.tensor([[1.0, 2.0, 3.0]], dtype=torch.float64)

    white = whiten(x, torch.ones_like(x, dtype=torch.bool))

    assert white.tolist() == [pytest.approx([-1.0, 0.0, 1.0], abs=1e-7)]


@quick
@given(ragged_batches)
def test_kl_estimators_and_reward(batch: Ragged) -> None:
    logprobs, ref = batch.draw(1), batch.draw(2)

    estimates = [batch.rows(estimator(logprobs, ref)) for estimator in (k1, k2, k3)]
    penalty = kl_reward(logprobs, ref, 0.15, batch.mask)

    for b, (row, ref_row) in enumerate(zip(batch.rows(logprobs), batch.rows(ref), strict=True)):
        for t, (a, q) in enumerate(zip(row, ref_row, strict=True)):
            expected = (a - q, (a - q) ** 2 / 2, math.exp(q - a) - 1 + (a - q))
            assert tuple(rows[b][t] for rows in estimates) == exactly(expected)
            assert penalty[b, t].item() == exactly(-0.15 * (a - q))
    assert penalty[~batch.mask].eq(0).all()


@quick
@given(ragged_batches, st.sampled_from([None, 1.5]), st.booleans())
def test_policy_loss(batch: Ragged, dual: float | None, weighted: bool) -> None:
    new, old, advantages = batch.draw(1, 0.3), batch.draw(2, 0.3), batch.draw(3)
    weights = importance_weights(old, batch.draw(4, 0.5), 2.0) if weighted else None

    total, sums = policy_loss_sum(new, old, advantages, weights, batch.mask, 0.2, 0.28, dual)

    loss, low, high, ratios, approx_kl = 0.0, 0, 0, [], 0.0
    factors = batch.rows(weights) if weights is not None else [[1.0] * n for n in batch.lengths]
    for a_row, b_row, adv_row, w_row in zip(
        batch.rows(new), batch.rows(old), batch.rows(advantages), factors, strict=True
    ):
        for a, b, adv, w in zip(a_row, b_row, adv_row, w_row, strict=True):
            rho = math.exp(a - b)
            token = max(-adv * rho, -adv * bounded(rho, 0.8, 1.28))
            if dual is not None and adv < 0:
                token = min(token, -adv * dual)
            loss += w * token
            low += adv < 0 and rho < 0.8
            high += adv > 0 and rho > 1.28
            ratios.append(rho)
            approx_kl += rho - 1 - math.log(rho)
    assert total.item() == exactly(loss)
    assert sums.loss == exactly(loss)
    assert (sums.tokens, sums.clipped_low, sums.clipped_high, sums.clipped) == (len(ratios), low, high, low + high)
    assert (sums.ratio, sums.ratio_min, sums.ratio_max) == exactly((sum(ratios), min(ratios), max(ratios)))
    assert sums.approx_kl == exactly(approx_kl)


@quick
@given(ragged_batches, st.sampled_from([None, 0.2]))
def test_value_loss(batch: Ragged, clip: float | None) -> None:
    new, old, returns = batch.draw(1, 0.5), batch.draw(2, 0.5), batch.draw(3)

    total, sums = value_loss_sum(new, old, returns, batch.mask, clip)

    loss, clipped = 0.0, 0
    for new_row, old_row, returns_row in zip(batch.rows(new), batch.rows(old), batch.rows(returns), strict=True):
        for v, before, r in zip(new_row, old_row, returns_row, strict=True):
            error = (v - r) ** 2
            other = error if clip is None else (bounded(v, before - clip, before + clip) - r) ** 2
            loss += 0.5 * max(error, other)
            clipped += other > error
    assert (total.item(), sums.loss) == exactly((loss, loss))
    assert (sums.tokens, sums.clipped) == (sum(batch.lengths), clipped)


@quick
@given(ragged_batches, st.sampled_from(["k2", "k3"]))
def test_kl_loss(batch: Ragged, estimator: str) -> None:
    new, old, ref = batch.draw(1), batch.draw(2), batch.draw(3)
    weights = importance_weights(old, batch.draw(4), 2.0)

    total = kl_loss_sum(new, old, ref, weights, batch.mask, estimator)

    expected = 0.0
    for rows in zip(*(batch.rows(x) for x in (new, old, ref, weights)), strict=True):
        for a, b, q, w in zip(*rows, strict=True):
            k = (a - q) ** 2 / 2 if estimator == "k2" else math.exp(q - a) - 1 - (q - a)
            expected += math.exp(a - b) * w * k
    assert total.item() == exactly(expected)


def test_kl_loss_refuses_k1() -> None:
    x = torch.zeros(1, 1)
    with pytest.raises(ValueError, match="cannot be a loss"):
        kl_loss_sum(x, x, x, None, torch.ones(1, 1, dtype=torch.bool), "k1")


@quick
@given(ragged_batches)
def test_importance_weights_are_capped_and_bounded(batch: Ragged) -> None:
    old, sampler = batch.draw(1, 20.0), batch.draw(2, 20.0)

    weights = importance_weights(old.requires_grad_(), sampler, 2.0)

    assert not weights.requires_grad
    for w_row, old_row, sampler_row in zip(*(batch.rows(x) for x in (weights, old, sampler)), strict=True):
        for w, a, b in zip(w_row, old_row, sampler_row, strict=True):
            assert w == exactly(min(math.exp(bounded(a - b, -20.0, 20.0)), 2.0))


@quick
@given(ragged_batches, st.floats(0.3, 3.0))
def test_logprobs_entropy_and_sft_loss(batch: Ragged, temperature: float) -> None:
    generator = torch.Generator().manual_seed(batch.seed)
    logits = torch.randn((*batch.mask.shape, 5), generator=generator, dtype=torch.float64) * 3
    targets = torch.randint(0, 5, batch.mask.shape, generator=generator)

    logprobs, entropies = token_logprobs(logits, targets, temperature), entropy(logits, temperature)

    sum_logprobs, sum_entropy = 0.0, 0.0
    for b, length in enumerate(batch.lengths):
        for t in range(length):
            scaled = [z / temperature for z in logits[b, t].tolist()]
            total = math.fsum(math.exp(z) for z in scaled)
            probabilities = [math.exp(z) / total for z in scaled]
            sum_logprobs += math.log(probabilities[targets[b, t]])
            sum_entropy -= math.fsum(p * math.log(p) for p in probabilities)
            assert logprobs[b, t].item() == exactly(math.log(probabilities[targets[b, t]]))
    assert sft_loss_sum(logprobs, batch.mask).item() == exactly(-sum_logprobs)
    assert entropy_sum(entropies, batch.mask).item() == exactly(sum_entropy)


def test_logprobs_of_narrow_floats_are_float32() -> None:
    logits = torch.tensor([[[2.0, -1.0, 0.5]]], dtype=torch.bfloat16)

    result = token_logprobs(logits, torch.tensor([[0]]), 1.0)

    assert result.dtype == torch.float32
    torch.testing.assert_close(result, torch.log_softmax(logits.float(), -1)[..., 0])


def test_entropy_of_a_forbidden_symbol_is_finite() -> None:
    logits = torch.tensor([[[0.0, 0.0, -math.inf]]], dtype=torch.float64)

    assert entropy(logits, 1.0).item() == exactly(math.log(2))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan])
def test_temperature_must_be_positive(temperature: float) -> None:
    with pytest.raises(ValueError, match="temperature"):
        token_logprobs(torch.zeros(1, 1, 2), torch.zeros(1, 1), temperature)
