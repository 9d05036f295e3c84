"""Advantage estimators behind one signature. Shapes: B sequences, T completion positions."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

import torch
from torch import Tensor


class AdvantageEstimator(Protocol):
    """Turns token rewards into (advantages_BT, returns_BT), both 0 where masked; whitening comes after."""

    def __call__(
        self,
        rewards_BT: Tensor,
        values_BT: Tensor,
        mask_BT: Tensor,
        gamma: float,
        lam: float,
        groups_B: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Estimate. `groups_B` says which sequences share a prompt, for estimators that compare within a group."""
        ...


def gae(
    rewards_BT: Tensor,
    values_BT: Tensor,
    mask_BT: Tensor,
    gamma: float,
    lam: float,
    groups_B: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation (Schulman et al., arXiv:1506.02438): advantages and returns, [B, T], detached.

    d_t = r_t + gamma V_{t+1} - V_t, A_t = d_t + gamma lam A_{t+1}, R_t = A_t + V_t. V_t is the value of the state
    *before* token t; the state after the last real token is terminal, V_{T+1} = 0, whether it ended by itself or was
    cut.

    Args:
        rewards_BT: Reward of each token.
        values_BT: Value before each token.
        mask_BT: True for real tokens, which must be a prefix of each row.
        gamma: Discount.
        lam: Weight of longer estimates.
        groups_B: Not used.
    """
    del groups_B
    zero_BT = torch.zeros_like(values_BT)
    values_BT = torch.where(mask_BT, values_BT.detach(), zero_BT)
    rewards_BT = torch.where(mask_BT, rewards_BT.detach(), zero_BT)
    advantages_BT = torch.zeros_like(values_BT)
    next_advantage_B = torch.zeros_like(values_BT[:, 0])
    next_value_B = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        # In masked positions reward, value and both carries are 0, so the recursion starts afresh at the last real
        # token.
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        next_advantage_B = delta_B + gamma * lam * next_advantage_B
        next_value_B = values_BT[:, t]
        advantages_BT[:, t] = next_advantage_B
    return advantages_BT, advantages_BT + values_BT


ESTIMATORS: Mapping[str, AdvantageEstimator] = MappingProxyType({"gae": gae})
