"""KL divergence from the reference: estimators, the penalty inside the reward, and the adaptive coefficient.

With d = l - q (policy minus reference logprob of a sampled token), Schulman's estimators of KL(policy || reference) are
k1 = d, k2 = d^2 / 2, k3 = exp(-d) - 1 + d (http://joschu.net/blog/kl-approx.html).
Only k1 in the reward and k2 in the loss give the gradient of the reverse KL (arXiv:2510.01555).
"""

import torch
from torch import Tensor

LOG_RATIO_BOUND = 20.0  # exp(20) is finite in every float type used; beyond it a ratio says nothing more


def k1(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return l - q: unbiased, of either sign."""
    return logprobs - ref_logprobs


def k2(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return (l - q)^2 / 2: biased, its gradient on policy is that of KL(policy || reference)."""
    return 0.5 * (logprobs - ref_logprobs).square()


def k3(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Return exp(q - l) - 1 - (q - l): unbiased, never negative. q - l is bounded to +-20 inside the exponential."""
    difference = ref_logprobs - logprobs
    return torch.expm1(difference.clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)) - difference


def kl_reward(logprobs_BT: Tensor, ref_logprobs_BT: Tensor, beta: float, mask_BT: Tensor) -> Tensor:
    """Return -beta * (l_t - q_t) for each real token, 0 elsewhere, [B, T]."""
    penalty_BT = -beta * k1(logprobs_BT, ref_logprobs_BT)
    return torch.where(mask_BT, penalty_BT, torch.zeros_like(penalty_BT))


def adaptive_kl(beta: float, kl: float, target: float, n: int, horizon: float) -> float:
    """Return the coefficient of the next step (Ziegler et al., arXiv:1909.08593).

    e = clip(kl / target - 1, -0.2, 0.2); beta * (1 + e * n / horizon).

    Args:
        beta: Coefficient of this step.
        kl: Mean KL of this step in nats per sequence.
        target: KL that is aimed at, in nats per sequence, above 0.
        n: Sequences of this step over all ranks, below `horizon`.
        horizon: Sequences over which the coefficient may change by about a fifth.
    """
    if not target > 0:
        raise ValueError(f"KL target is {target}; it must be above 0 nats per sequence")
    if not 0 < n < horizon:
        raise ValueError(f"{n} sequences a step do not fit a KL horizon of {horizon}: 0 < n < horizon must hold")
    error = min(max(kl / target - 1.0, -0.2), 0.2)
    return beta * (1.0 + error * n / horizon)
