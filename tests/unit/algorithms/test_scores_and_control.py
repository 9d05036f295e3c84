"""Scores, token rewards, the KL controller, schedules and orders."""

import math
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from quatrain.algorithms.kl import adaptive_kl
from quatrain.algorithms.permutation import minibatches, permutation
from quatrain.algorithms.rewards import token_rewards
from quatrain.algorithms.schedules import lr_at
from quatrain.algorithms.scores import compose_score


def test_score_is_offset_then_scaled_then_clipped_then_penalised() -> None:
    assert compose_score(3.0, 1.0, 2.0, None, 1.0, truncated=False) == 4.0
    assert compose_score(3.0, 1.0, 2.0, 3.5, 1.0, truncated=False) == 3.5
    assert compose_score(-3.0, 1.0, 2.0, 3.5, 1.0, truncated=True) == -4.5


def test_score_lands_on_the_last_real_token() -> None:
    penalty = torch.tensor([[-0.1, -0.2, 0.0], [-0.3, -0.4, -0.5]])

    rewards = token_rewards(torch.tensor([1.0, -2.0]), penalty, torch.tensor([2, 3]))

    torch.testing.assert_close(rewards, torch.tensor([[-0.1, 0.8, 0.0], [-0.3, -0.4, -2.5]]))


@pytest.mark.parametrize("length", [0, 4])
def test_a_score_without_a_token_is_refused(length: int) -> None:
    with pytest.raises(ValueError, match=r"1\.\.3"):
        token_rewards(torch.tensor([1.0]), torch.zeros(1, 3), torch.tensor([length]))


def test_adaptive_kl_golden_number() -> None:
    assert adaptive_kl(0.15, 9.0, 6.0, 512, 10000) == pytest.approx(0.151536, rel=1e-12)
    assert adaptive_kl(0.15, 0.0, 6.0, 512, 10000) == pytest.approx(0.15 * (1 - 0.2 * 0.0512), rel=1e-12)
    assert adaptive_kl(0.15, 6.3, 6.0, 512, 10000) == pytest.approx(0.15 * (1 + 0.05 * 0.0512), rel=1e-12)


@pytest.mark.parametrize(("target", "n"), [(0.0, 1), (1.0, 0), (1.0, 100)])
def test_adaptive_kl_refuses_what_would_not_control(target: float, n: int) -> None:
    with pytest.raises(ValueError, match="KL"):
        adaptive_kl(0.1, 1.0, target, n, 100)


def test_linear_rate_falls_to_zero_after_the_last_step() -> None:
    assert [lr_at(k, 4, 1.0, "linear", 0) for k in range(4)] == [1.0, 0.75, 0.5, 0.25]


def test_warm_up_rises_without_a_step_at_zero() -> None:
    assert [lr_at(k, 5, 1.0, "constant", 3) for k in range(5)] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert [lr_at(k, 6, 1.0, "linear", 2) for k in range(6)] == pytest.approx([1 / 3, 2 / 3, 1.0, 0.75, 0.5, 0.25])


def test_cosine_rate() -> None:
    assert [lr_at(k, 4, 2.0, "cosine", 0) for k in range(4)] == pytest.approx(
        [2.0, 1 + math.sqrt(0.5), 1.0, 1 - math.sqrt(0.5)]
    )


@pytest.mark.parametrize(("k", "schedule"), [(-1, "linear"), (4, "linear"), (0, "square")])
def test_rates_that_do_not_exist(k: int, schedule: str) -> None:
    with pytest.raises(ValueError, match="does not exist"):
        lr_at(k, 4, 1.0, schedule)


@given(st.integers(0, 40), st.integers(1, 12), st.integers(0, 5), st.integers(1, 5), st.integers(0, 5))
def test_minibatches_cut_a_permutation_evenly(n: int, parts: int, seed: int, step: int, epoch: int) -> None:
    cut = minibatches(n, parts, seed, step, epoch)

    assert sorted(index for part in cut for index in part) == list(range(n))
    assert len(cut) == min(n, parts)
    assert not cut or max(map(len, cut)) - min(map(len, cut)) <= 1


def test_order_depends_on_each_part_of_its_key_and_never_changes() -> None:
    orders = [
        minibatches(16, 1, seed, step, epoch)[0] for seed, step, epoch in [(1, 1, 0), (2, 1, 0), (1, 2, 0), (1, 1, 1)]
    ]

    assert len({tuple(order) for order in orders}) == 4
    assert permutation(8, "sft", 1, 0) == [3, 0, 4, 1, 7, 5, 2, 6]


def test_zero_minibatches_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        minibatches(4, 0, 1, 1, 0)


def test_torch_free_modules_stay_torch_free() -> None:
    modules = ["scores", "schedules", "permutation", "evaluation", "statistics", "lengths"]
    code = "; ".join(f"import quatrain.algorithms.{module}" for module in modules)

    subprocess.run(
        [sys.executable, "-c", f"import sys; {code}; assert 'torch' not in sys.modules"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        check=True,
        timeout=60,
    )
