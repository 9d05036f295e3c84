"""Advantage estimators behind one signature. Shapes: B sequences, T completion positions.

To add one, write its function, add its line to `ESTIMATORS` and its name to `AdvantageSpec.estimator`
(`quatrain.jobspec.sections`), which imports no torch and so cannot read the table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class EstimatorInputs:
    """The inputs of an estimator.

    Attributes:
        rewards_BT: Reward of each token, with the KL penalty unless that is in the loss; the score is in the last one.
        values_BT: Value before each token; None where there is no critic.
        mask_BT: True for real tokens, which are a prefix of each row.
        groups_B: int64, equal numbers for the samples of one prompt and different ones for others. A group has lost
            the samples that were refused or skipped, so groups may be of unequal size, even of one sample.
        gamma: Discount.
        lam: Weight of longer estimates.
    """

    rewards_BT: Tensor
    values_BT: Tensor | None
    mask_BT: Tensor
    groups_B: Tensor
    gamma: float = 1.0
    lam: float = 1.0


@dataclass(frozen=True, eq=False)
class Estimate:
    """The result of an estimator, detached and 0 where masked; whitening comes after.

    Attributes:
        advantages_BT: Advantage of each token.
        returns_BT: What the critic learns to predict; None from an estimator that needs no critic.
    """

    advantages_BT: Tensor
    returns_BT: Tensor | None = None


@dataclass(frozen=True)
class Estimator:
    """An estimator, and whether it needs the values of a critic. Without one, no value model is loaded or trained."""

    estimate: Callable[[EstimatorInputs], Estimate]
    needs_critic: bool


def gae(inputs: EstimatorInputs) -> Estimate:
    """Return the generalised advantage estimate (Schulman et al., arXiv:1506.02438).

    d_t = r_t + gamma V_{t+1} - V_t, A_t = d_t + gamma lam A_{t+1}, R_t = A_t + V_t. V_t is the value of the state
    *before* token t; the state after the last real token is terminal, V_{T+1} = 0, whether it ended by itself or was
    cut.

    Raises:
        ValueError: There are no values.
    """
    if inputs.values_BT is None:
        raise ValueError("gae needs the values of a critic")
    mask_BT, gamma, lam = inputs.mask_BT, inputs.gamma, inputs.lam
    zero_BT = torch.zeros_like(inputs.values_BT)
    values_BT = torch.where(mask_BT, inputs.values_BT.detach(), zero_BT)
    rewards_BT = torch.where(mask_BT, inputs.rewards_BT.detach(), zero_BT)
    advantages_BT = torch.zeros_like(values_BT)
    next_advantage_B = torch.zeros_like(values_BT[:, 0])
    next_value_B = torch.zeros_like(values_BT[:, 0])
    for t in reversed(range(values_BT.shape[1])):
        # In masked positions reward, value and both carries are 0, so the recursion begins at zero at the last real
        # token.
        delta_B = rewards_BT[:, t] + gamma * next_value_B - values_BT[:, t]
        next_advantage_B = delta_B + gamma * lam * next_advantage_B
        next_value_B = values_BT[:, t]
        advantages_BT[:, t] = next_advantage_B
    return Estimate(advantages_BT, advantages_BT + values_BT)


ESTIMATORS: Mapping[str, Estimator] = MappingProxyType({"gae": Estimator(gae, needs_critic=True)})


def estimator_named(name: str) -> Estimator:
    """Return the estimator of this name. Raises ValueError."""
    if name not in ESTIMATORS:
        raise ValueError(f"advantage estimator {name!r} does not exist; it is one of {', '.join(sorted(ESTIMATORS))}")
    return ESTIMATORS[name]
