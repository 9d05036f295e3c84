import math

import pytest
import torch

from quatrain.algorithms.reward_model import accuracy, calibration_error, head_std, held_out_report, pairwise_loss


def test_pairwise_loss_by_hand() -> None:
    chosen, rejected = torch.tensor([2.0, 0.0], dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64)

    loss = pairwise_loss(chosen, rejected)
    with_margin = pairwise_loss(chosen, rejected, torch.tensor([0.5, 1.0], dtype=torch.float64))

    assert loss.tolist() == pytest.approx([math.log(1 + math.exp(-1)), math.log(1 + math.exp(3))], rel=1e-12)
    assert with_margin.tolist() == pytest.approx([math.log(1 + math.exp(-0.5)), math.log(1 + math.exp(4))], rel=1e-12)


def test_pairwise_loss_is_finite_far_out() -> None:
    assert pairwise_loss(torch.tensor([-500.0]), torch.tensor([500.0])).item() == 1000.0


def test_pairwise_gradient_pulls_the_pair_apart_by_equal_amounts() -> None:
    chosen, rejected = torch.tensor([1.0], requires_grad=True), torch.tensor([1.0], requires_grad=True)

    gradients = torch.autograd.grad(pairwise_loss(chosen, rejected).sum(), [chosen, rejected])

    assert [gradient.item() for gradient in gradients] == [-0.5, 0.5]


def test_head_std() -> None:
    assert head_std(63) == 0.125


def test_accuracy_counts_a_tie_half() -> None:
    assert accuracy([1.0, 2.0, 3.0, 0.0], [0.0, 2.0, 4.0, -1.0]) == 0.625
    assert accuracy([], []) is None


def test_calibration_error_by_hand() -> None:
    certain = math.log(9)  # sigmoid = 0.9
    chosen, rejected = [certain] * 9 + [0.0], [0.0] * 9 + [certain]

    assert calibration_error(chosen, rejected) == pytest.approx(0.0, abs=1e-12)
    assert calibration_error([100.0, 0.0], [0.0, 100.0]) == pytest.approx(0.5)
    assert calibration_error([1.0], [1.0]) == 0.0
    assert calibration_error([], []) is None


def test_held_out_report_pools_both_sides_for_length() -> None:
    report = held_out_report([1.0, 3.0], [0.0, 2.0], [2, 4], [1, 3])

    assert report.accuracy == 1.0
    assert report.length_correlation == pytest.approx(1.0)
    assert held_out_report([], [], [], []).accuracy is None
