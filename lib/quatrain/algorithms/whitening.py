"""Masked mean, variance and whitening over a whole step, whatever ranks it is spread over.

A rank computes `Moments` of its part, the parts are added, and each rank whitens its part with the sum.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations of a set of numbers; `+` joins two sets (Chan et al., 1979)."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    def __add__(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if count == 0:
            return Moments()
        delta = other.mean - self.mean
        mean = self.mean + delta * other.count / count
        squares = self.squares + other.squares + delta * delta * self.count * other.count / count
        return Moments(count, mean, squares)

    @property
    def variance(self) -> float:
        """Bessel's variance, sum of squared deviations / (count - 1); 0 for fewer than two numbers."""
        return self.squares / (self.count - 1) if self.count > 1 else 0.0


def moments(x_BT: Tensor, mask_BT: Tensor) -> Moments:
    """Return the moments of the unmasked elements, summed in float64."""
    real = x_BT.detach()[mask_BT].double()
    if real.numel() == 0:
        return Moments()
    mean = real.mean()
    return Moments(real.numel(), mean.item(), (real - mean).square().sum().item())


def whiten(x_BT: Tensor, mask_BT: Tensor, shift_mean: bool = True, over: Moments | None = None) -> Tensor:
    """Return (x - mean) / sqrt(variance + 1e-8), [B, T], 0 where masked; the mean is added back unless `shift_mean`.

    Args:
        x_BT: What to whiten.
        mask_BT: True for the elements that count.
        shift_mean: False keeps the mean.
        over: Moments of the whole step, when this tensor is only a part of it. Fewer than two elements in all give 0.
    """
    over = moments(x_BT, mask_BT) if over is None else over
    if over.count < 2:
        return torch.zeros_like(x_BT)
    white_BT = (x_BT.double() - over.mean) * (over.variance + VARIANCE_FLOOR) ** -0.5
    if not shift_mean:
        white_BT = white_BT + over.mean
    return torch.where(mask_BT, white_BT, torch.zeros_like(white_BT)).to(x_BT.dtype)
