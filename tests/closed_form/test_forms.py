"""The closed forms against the numbers in the design, and against the best policy found by brute force."""

import itertools
import math

import pytest
from tests.closed_form.forms import count_symbol, end_early, length_cost, length_optimum, non_decreasing
from tests.closed_form.rewards import count_symbol as count_reward
from tests.closed_form.rewards import end_early as length_reward
from tests.closed_form.rewards import non_decreasing as sorted_reward


def test_count_symbol_numbers() -> None:
    best = count_symbol(6, 4, 0.5)

    assert best.expected_reward / 4 == pytest.approx(0.596418, abs=1e-6)
    assert best.expected_reward == pytest.approx(2.385672, abs=1e-6)
    assert best.kl == pytest.approx(1.871128, abs=1e-6)
    assert best.objective == pytest.approx(1.450108, abs=1e-6)


def test_non_decreasing_numbers() -> None:
    best = non_decreasing(4, 4, 0.5)

    assert math.comb(7, 4) / 4**4 == 35 / 256
    assert best.expected_reward == pytest.approx(0.539216, abs=1e-6)
    assert best.kl == pytest.approx(0.450621, abs=1e-6)
    assert best.objective == pytest.approx(0.313905, abs=1e-6)


def test_end_early_numbers() -> None:
    best = end_early(20, 16, cost=0.1, penalty=1.0, beta=0.5)

    assert best.mean_length == pytest.approx(4.36419, abs=1e-5)
    assert best.truncated == pytest.approx(0.013242, abs=1e-6)
    assert best.expected_reward == pytest.approx(-0.449662, abs=1e-6)
    assert best.kl == pytest.approx(0.797030, abs=1e-6)
    assert best.objective == pytest.approx(-0.848177, abs=1e-6)


def test_end_early_follows_the_recursion_of_the_design() -> None:
    q, cost, penalty, beta = 0.05, 0.1, 1.0, 0.5
    z = math.exp(-penalty / beta)
    hazards = []
    for _ in range(16):
        hazards.append(q / (q + (1 - q) * z))
        z = math.exp(-cost / beta) * (q + (1 - q) * z)

    best = end_early(20, 16, cost, penalty, beta)

    assert best.objective == pytest.approx(beta * math.log(z), rel=1e-12)
    assert best.hazards == pytest.approx(tuple(reversed(hazards)), rel=1e-12)
    assert best.expected_reward - beta * best.kl == pytest.approx(best.objective, rel=1e-12)


@pytest.mark.parametrize("beta", [0.2, 0.5, 2.0])
def test_fixed_length_forms_are_the_tilted_reference(beta: float) -> None:
    completions = list(itertools.product(range(4), repeat=3))
    for form, rewards in (
        (count_symbol(4, 3, beta), count_reward(completion_ids=completions, finish_reasons=[])),
        (non_decreasing(4, 3, beta), sorted_reward(completion_ids=completions)),
    ):
        weights = [math.exp(reward / beta) / len(completions) for reward in rewards]
        partition = sum(weights)
        expected = sum(w * r for w, r in zip(weights, rewards, strict=True)) / partition
        kl = sum(w * math.log(w / partition * len(completions)) for w in weights) / partition

        assert (form.expected_reward, form.kl) == pytest.approx((expected, kl), rel=1e-12)
        assert form.objective == pytest.approx(beta * math.log(partition), rel=1e-12)


def test_length_form_is_the_tilted_reference() -> None:
    beta, q = 0.5, 1 / 3
    cases = [(length, True, (1 - q) ** (length - 1) * q) for length in range(1, 5)] + [(4, False, (1 - q) ** 4)]
    reward = length_cost(0.1, 1.0)
    weights = [p * math.exp(reward(length, stopped) / beta) for length, stopped, p in cases]
    shares = [weight / sum(weights) for weight in weights]

    best = length_optimum(3, 4, reward, beta)

    assert best.objective == pytest.approx(beta * math.log(sum(weights)), rel=1e-12)
    assert best.truncated == pytest.approx(shares[-1], rel=1e-12)
    assert best.mean_length == pytest.approx(sum(s * c[0] for s, c in zip(shares, cases, strict=True)), rel=1e-12)
    assert best.kl == pytest.approx(sum(s * math.log(s / c[2]) for s, c in zip(shares, cases, strict=True)), rel=1e-12)
    assert length_reward(completion_ids=[[1, 2, 0]]) == [pytest.approx(reward(3, True))]
