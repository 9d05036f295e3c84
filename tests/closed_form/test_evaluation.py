"""The judges: exact where they say so, and within their stated error where they draw."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from tests.closed_form.enumeration import average, evaluate, evaluate_policy
from tests.closed_form.forms import (
    LengthOptimum,
    count_symbol,
    end_early,
    length_cost,
    non_decreasing,
)
from tests.closed_form.lengths import LengthTask, evaluate_length_policy, evaluate_lengths
from tests.closed_form.models import TinyModel, build
from tests.closed_form.policies import Policy, folder_policy, uniform_policy
from torch import Tensor

PROMPT = [1, 0]
SMALL = LengthTask(vocab_size=3, max_length=5, reward=length_cost(0.1, 1.0), beta=0.5, eos_id=2)
TASK_C = LengthTask(vocab_size=20, max_length=16, reward=length_cost(0.1, 1.0), beta=0.5, eos_id=3)


def count(ids: tuple[int, ...], stopped: bool) -> float:
    return float(ids.count(0))


def in_order(ids: tuple[int, ...], stopped: bool) -> float:
    return float(list(ids) == sorted(ids))


def best_length_policy(best: LengthOptimum, vocab_size: int, eos_id: int) -> Policy:
    def policy(prefixes: Tensor) -> Tensor:
        hazard = best.hazards[prefixes.shape[1]]
        row = torch.full((vocab_size,), (1 - hazard) / (vocab_size - 1), dtype=torch.float64)
        row[eos_id] = hazard
        return row.log().expand(len(prefixes), -1)

    return policy


@pytest.fixture(scope="module")
def zero_six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("zero6"), TinyModel(6))


@pytest.fixture(scope="module")
def random_three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("random3"), TinyModel(3, head_std=0.3, seed=1))


@pytest.fixture(scope="module")
def random_twenty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(tmp_path_factory.mktemp("random20"), TinyModel(20, head_std=0.1, seed=2))


def test_a_zero_head_is_uniform_and_starts_where_the_design_says(zero_six: Path) -> None:
    start = evaluate(zero_six, PROMPT, 6, 4, count, 0.5)

    assert start.expected_reward == pytest.approx(4 / 6, abs=1e-12)
    assert start.kl == pytest.approx(0.0, abs=1e-12)
    assert start.gap == pytest.approx(count_symbol(6, 4, 0.5).objective - 4 / 6, abs=1e-12)
    assert start.mean_length == pytest.approx(4.0)
    assert (start.truncated, start.gap_se) == (0.0, 0.0)


def test_the_best_policies_have_no_gap() -> None:
    p = count_symbol(6, 4, 0.5).expected_reward / 4
    row = torch.tensor([p] + [(1 - p) / 5] * 5, dtype=torch.float64).log()

    result = evaluate_policy(lambda prefixes: row.expand(len(prefixes), -1), uniform_policy(6), 6, 4, count, 0.5)

    best = count_symbol(6, 4, 0.5)
    assert (result.expected_reward, result.kl) == pytest.approx((best.expected_reward, best.kl), abs=1e-12)
    assert result.gap == pytest.approx(0.0, abs=1e-12)


def test_gap_of_the_uniform_policy_in_task_b() -> None:
    result = evaluate_policy(uniform_policy(4), uniform_policy(4), 4, 4, in_order, 0.5)

    assert result.expected_reward == pytest.approx(35 / 256, abs=1e-12)
    assert result.gap == pytest.approx(non_decreasing(4, 4, 0.5).objective - 35 / 256, abs=1e-12)


def test_a_random_model_agrees_with_its_own_logits(random_three: Path) -> None:
    policy = folder_policy(random_three, PROMPT, 3)
    first = policy(torch.zeros(1, 0, dtype=torch.long))[0]
    second = policy(torch.tensor([[0], [1], [2]]))

    result = evaluate(random_three, PROMPT, 3, 2, count, 0.5)

    p = first.exp()[:, None] * second.exp()
    assert p.sum().item() == pytest.approx(1.0, abs=1e-12)
    assert result.expected_reward == pytest.approx((p[0].sum() + p[:, 0].sum()).item(), abs=1e-12)
    assert result.kl == pytest.approx((p * (p * 9).log()).sum().item(), abs=1e-12)
    assert result.kl > 0.01


def test_a_policy_against_its_own_folder_has_no_kl(random_three: Path) -> None:
    result = evaluate(random_three, PROMPT, 3, 3, count, 0.5, reference=random_three)

    assert result.kl == 0.0
    assert result.gap > 0.0


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_lengths_agree_with_full_enumeration(random_three: Path, depth: int) -> None:
    exact = evaluate(random_three, PROMPT, 3, 5, lambda ids, stopped: SMALL.reward(len(ids), stopped), 0.5, eos_ids=[2])

    drawn = evaluate_lengths(random_three, PROMPT, SMALL, depth=depth, samples=100)

    assert 0.0 < drawn.gap_se < 0.01
    assert abs(drawn.gap - exact.gap) < 4 * drawn.gap_se
    assert abs(drawn.kl - exact.kl) < 4 * drawn.kl_se
    assert abs(drawn.expected_reward - exact.expected_reward) < 4 * drawn.expected_reward_se
    assert drawn.objective + drawn.gap == pytest.approx(SMALL.best.objective, abs=1e-12)


def test_lengths_at_full_depth_are_exact(random_three: Path) -> None:
    exact = evaluate(random_three, PROMPT, 3, 5, lambda ids, stopped: SMALL.reward(len(ids), stopped), 0.5, eos_ids=[2])

    result = evaluate_lengths(random_three, PROMPT, SMALL, depth=4)

    assert dataclasses.astuple(result) == pytest.approx(dataclasses.astuple(exact), abs=1e-12)


def test_task_c_best_policy_is_judged_without_error() -> None:
    best = end_early(20, 16, 0.1, 1.0, 0.5)

    result = evaluate_length_policy(best_length_policy(best, 20, 3), TASK_C, depth=1, samples=2)

    assert (result.expected_reward, result.kl) == pytest.approx((best.expected_reward, best.kl), abs=1e-12)
    assert (result.mean_length, result.truncated) == pytest.approx((best.mean_length, best.truncated), abs=1e-12)
    assert (result.gap, result.gap_se) == pytest.approx((0.0, 0.0), abs=1e-12)


def test_task_c_at_full_size_is_judged_closely(random_twenty: Path) -> None:
    result = evaluate_lengths(random_twenty, PROMPT, TASK_C, depth=1, samples=16)

    best = TASK_C.best
    assert result.objective + result.gap == pytest.approx(best.objective, abs=1e-12)
    assert result.gap > 0.1
    assert result.gap_se < 0.01 * result.gap
    assert result.expected_reward_se < 0.005


def test_average_over_prompts() -> None:
    one = evaluate_policy(uniform_policy(4), uniform_policy(4), 4, 2, count, 0.5)
    two = dataclasses.replace(one, kl=one.kl + 1.0, gap_se=0.6)

    result = average([one, two])

    assert result.kl == pytest.approx(one.kl + 0.5)
    assert result.gap_se == pytest.approx(0.3)


def test_refusals(zero_six: Path) -> None:
    with pytest.raises(ValueError, match="6 symbols, not 5"):
        evaluate(zero_six, PROMPT, 5, 2, count, 0.5)
    with pytest.raises(ValueError, match="prompt is empty"):
        evaluate(zero_six, [], 6, 2, count, 0.5)
    with pytest.raises(ValueError, match="too many to enumerate"):
        evaluate_policy(uniform_policy(20), uniform_policy(20), 20, 16, count, 0.5, eos_ids=[3])
    with pytest.raises(ValueError, match="depth"):
        evaluate_length_policy(uniform_policy(3), SMALL, depth=5)


def test_uniform_policy_in_task_c() -> None:
    result = evaluate_length_policy(uniform_policy(20), TASK_C, depth=0)

    assert result.truncated == pytest.approx(0.95**16, abs=1e-12)
    assert result.mean_length == pytest.approx((1 - 0.95**16) / 0.05, abs=1e-12)
    assert result.kl == pytest.approx(0.0, abs=1e-12)
    assert result.expected_reward == pytest.approx(-0.1 * result.mean_length - result.truncated, abs=1e-12)
    assert math.isclose(result.gap_se, 0.0, abs_tol=1e-12)
