"""Whitening over a whole step: every rank holds the whole step, so no sums have to be exchanged."""

import torch
from torch import Tensor

VARIANCE_FLOOR = 1e-8


def whiten(x_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return (x - mean) / sqrt(variance + 1e-8), [B, T], 0 where masked; everything is 0 with fewer than two elements.

    Masked mean and Bessel's variance, summed in float64.
    """
    real = x_BT.detach()[mask_BT].double()
    if real.numel() < 2:
        return torch.zeros_like(x_BT)
    mean = real.mean().item()
    variance = (real - mean).square().sum().item() / (real.numel() - 1)
    white_BT = (x_BT.double() - mean) * (variance + VARIANCE_FLOOR) ** -0.5
    return torch.where(mask_BT, white_BT, torch.zeros_like(white_BT)).to(x_BT.dtype)
