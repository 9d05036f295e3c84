"""Training and judging a reward model from preference pairs. Shapes: B pairs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from quatrain.algorithms.statistics import correlation


def pairwise_loss(chosen_B: Tensor, rejected_B: Tensor, margin_B: Tensor | None = None) -> Tensor:
    """Return -log sigmoid(r_chosen - r_rejected - margin) of each pair, [B], in nats (Bradley-Terry; arXiv:2009.01325).

    The caller sums it and divides by the pairs of the whole optimizer batch. No margin is a margin of 0.
    """
    difference_B = chosen_B - rejected_B
    return -logsigmoid(difference_B if margin_B is None else difference_B - margin_B)


def head_std(hidden_size: int) -> float:
    """Return the standard deviation 1 / sqrt(d + 1) of a new reward head's weights (arXiv:2009.01325)."""
    return 1.0 / math.sqrt(hidden_size + 1)


def accuracy(chosen: Sequence[float], rejected: Sequence[float]) -> float | None:
    """Return the share of pairs whose chosen answer scores higher, a tie counting half; None without pairs."""
    if not chosen:
        return None
    wins = sum(1.0 if c > r else 0.5 if c == r else 0.0 for c, r in zip(chosen, rejected, strict=True))
    return wins / len(chosen)


def calibration_error(chosen: Sequence[float], rejected: Sequence[float], bins: int = 10) -> float | None:
    """Return the expected calibration error of the preference that the scores imply; None without pairs.

    The confidence of a pair is sigmoid(|r_chosen - r_rejected|), in [0.5, 1]; it is right when the chosen one scores
    higher (a tie is half right). Over equal-width bins of confidence: sum of (pairs in bin / pairs) * |mean
    confidence - share right| (Guo et al., arXiv:1706.04599).
    """
    if not chosen:
        return None
    difference = torch.tensor(chosen, dtype=torch.float64) - torch.tensor(rejected, dtype=torch.float64)
    confidence = torch.sigmoid(difference.abs())
    right = (difference > 0).double() + 0.5 * (difference == 0).double()
    index = ((confidence - 0.5) * 2 * bins).long().clamp(0, bins - 1)
    surplus = torch.zeros(bins, dtype=torch.float64).index_add_(0, index, confidence - right)
    return surplus.abs().sum().item() / len(chosen)


@dataclass(frozen=True)
class HeldOutReport:
    """The quality of a reward model on pairs that it has not seen. None: cannot be computed."""

    accuracy: float | None
    calibration_error: float | None
    length_correlation: float | None


def held_out_report(
    chosen: Sequence[float], rejected: Sequence[float], chosen_lengths: Sequence[int], rejected_lengths: Sequence[int]
) -> HeldOutReport:
    """Judge the scores of held-out pairs; lengths are in tokens of the answer, chosen and rejected pooled."""
    return HeldOutReport(
        accuracy=accuracy(chosen, rejected),
        calibration_error=calibration_error(chosen, rejected),
        length_correlation=correlation([*chosen, *rejected], [*chosen_lengths, *rejected_lengths]),
    )
