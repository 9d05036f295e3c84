"""The losses of PPO as sums over real tokens, with their statistics. Shapes: B sequences, T positions.

Every loss here is a *sum*. The caller divides it by the real tokens of the whole minibatch, over all its microbatches
and ranks; then the gradient does not depend on how the minibatch was split. Masked positions may hold anything.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from quatrain.algorithms.kl import LOG_RATIO_BOUND, k2, k3


@dataclass(frozen=True)
class PolicySums:
    """Sums over tokens of one or several policy losses; `+` joins microbatches, ranks and updates.

    `clipped` counts tokens whose clipped term is the larger one, `clipped_low` those with A < 0 and rho < 1 - clip_low,
    `clipped_high` those with A > 0 and rho > 1 + clip_high. `ratio_min` and `ratio_max` are extremes, not sums.
    """

    tokens: int = 0
    loss: float = 0.0
    clipped: float = 0.0
    clipped_low: float = 0.0
    clipped_high: float = 0.0
    ratio: float = 0.0
    approx_kl: float = 0.0
    ratio_min: float = float("inf")
    ratio_max: float = float("-inf")

    def __add__(self, other: "PolicySums") -> "PolicySums":
        return PolicySums(
            tokens=self.tokens + other.tokens,
            loss=self.loss + other.loss,
            clipped=self.clipped + other.clipped,
            clipped_low=self.clipped_low + other.clipped_low,
            clipped_high=self.clipped_high + other.clipped_high,
            ratio=self.ratio + other.ratio,
            approx_kl=self.approx_kl + other.approx_kl,
            ratio_min=min(self.ratio_min, other.ratio_min),
            ratio_max=max(self.ratio_max, other.ratio_max),
        )


@dataclass(frozen=True)
class ValueSums:
    """Sums over tokens of value losses; `clipped` counts tokens whose clipped error is the larger one."""

    tokens: int = 0
    loss: float = 0.0
    clipped: float = 0.0

    def __add__(self, other: "ValueSums") -> "ValueSums":
        return ValueSums(self.tokens + other.tokens, self.loss + other.loss, self.clipped + other.clipped)


def log_ratio(new_logprobs: Tensor, old_logprobs: Tensor) -> Tensor:
    """Return l' - l bounded to +-20; its exponential is the ratio rho."""
    return (new_logprobs - old_logprobs).clamp(-LOG_RATIO_BOUND, LOG_RATIO_BOUND)


def importance_weights(old_logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """Return min(exp(clamp(l - b, -20, 20)), cap), detached: token-level truncated importance sampling.

    l is the proximal logprob, b the sampler's. It scales the policy loss only, after the max.
    """
    return log_ratio(old_logprobs.detach(), sampler_logprobs.detach()).exp().clamp(max=cap)


def policy_loss_sum(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    weights: Tensor | None,
    mask: Tensor,
    clip_low: float,
    clip_high: float,
    dual: float | None = None,
) -> tuple[Tensor, PolicySums]:
    """Return the sum of w * max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)), a scalar, and its statistics.

    PPO's clipped objective (arXiv:1707.06347) with token-level importance weights, which leave the statistics alone.
    The gradient reaches `new_logprobs` only.

    Args:
        new_logprobs: l', [B, T].
        old_logprobs: Proximal l, [B, T].
        advantages: A, whitened or not, [B, T].
        weights: w of `importance_weights`, [B, T]; None is 1 everywhere.
        mask: True for real tokens.
        clip_low: Lower range of the ratio.
        clip_high: Upper range of the ratio.
        dual: Dual-clip bound c > 1: where A < 0 the loss is at most -A c (arXiv:1912.09729). None turns it off.
    """
    advantages = _kept(advantages.detach(), mask)
    log_rho = _kept(log_ratio(_kept(new_logprobs, mask), _kept(old_logprobs.detach(), mask)), mask)
    rho = log_rho.exp()
    plain = -advantages * rho
    bounded = -advantages * rho.clamp(1.0 - clip_low, 1.0 + clip_high)
    loss = torch.maximum(plain, bounded)
    if dual is not None:
        loss = torch.where(advantages < 0, torch.minimum(loss, -advantages * dual), loss)
    if weights is not None:
        loss = loss * _kept(weights.detach(), mask)
    total = loss.sum()
    clipped = (bounded > plain).detach()
    return total, _policy_sums(total.detach(), clipped, advantages, log_rho.detach()[mask].double())


def value_loss_sum(
    new_values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, clip: float | None
) -> tuple[Tensor, ValueSums]:
    """Return the sum of 0.5 * max((V' - R)^2, (clip(V', V - c, V + c) - R)^2), a scalar, and its statistics.

    Args:
        new_values: V', [B, T].
        old_values: V of the start of the step, [B, T].
        returns: R, [B, T], unwhitened.
        mask: True for real tokens.
        clip: c; None turns the clip off.
    """
    new_values, old_values, returns = (_kept(x, mask) for x in (new_values, old_values.detach(), returns.detach()))
    error = (new_values - returns).square()
    worst = error
    if clip is not None:
        bounded = torch.minimum(torch.maximum(new_values, old_values - clip), old_values + clip)
        worst = torch.maximum(error, (bounded - returns).square())
    total = 0.5 * worst.sum()
    clipped = (worst > error).sum().item()
    return total, ValueSums(int(mask.sum().item()), total.detach().double().item(), float(clipped))


def kl_loss_sum(
    new_logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    weights: Tensor | None,
    mask: Tensor,
    estimator: str = "k2",
) -> Tensor:
    """Return the sum of rho.detach() * w * k(l' - q), a scalar, to be multiplied by beta.

    k2 gives the gradient of KL(policy || reference), the detached ratio correcting for tokens sampled by the old
    policy. k3 gives the forward KL's, on-policy only (arXiv:2510.01555).

    Raises:
        ValueError: The estimator is neither `k2` nor `k3`: k1 as a loss has no gradient in expectation.
    """
    if estimator not in ("k2", "k3"):
        raise ValueError(f"KL estimator {estimator!r} cannot be a loss; use k2, or k3 for the forward KL")
    new_logprobs, old_logprobs, ref_logprobs = (
        _kept(x, mask) for x in (new_logprobs, old_logprobs.detach(), ref_logprobs.detach())
    )
    divergence = (k2 if estimator == "k2" else k3)(new_logprobs, ref_logprobs)
    factor = log_ratio(new_logprobs, old_logprobs).exp().detach()
    if weights is not None:
        factor = factor * _kept(weights.detach(), mask)
    return _kept(factor * divergence, mask).sum()


def entropy_sum(entropy_BT: Tensor, mask_BT: Tensor) -> Tensor:
    """Return the sum of the entropy over real tokens, a scalar in nats."""
    return _kept(entropy_BT, mask_BT).sum()


def _kept(x: Tensor, mask: Tensor) -> Tensor:
    """Return x with 0 where masked. Unlike a product it also keeps NaN and its gradient out."""
    return torch.where(mask, x, torch.zeros_like(x))


def _policy_sums(loss: Tensor, clipped: Tensor, advantages: Tensor, log_rho_N: Tensor) -> PolicySums:
    """Sum up a policy loss; log_rho_N holds the real tokens only, in float64."""
    tokens = log_rho_N.numel()
    if tokens == 0:
        return PolicySums()
    rho_N = log_rho_N.exp()
    sums = torch.stack(
        [
            loss.double(),
            # The clipped term is the larger one exactly if A < 0 and rho is too low, or A > 0 and rho is too high.
            (clipped & (advantages < 0)).sum().double(),
            (clipped & (advantages > 0)).sum().double(),
            rho_N.sum(),
            (torch.expm1(log_rho_N) - log_rho_N).sum(),
            rho_N.min(),
            rho_N.max(),
        ]
    )
    total, low, high, ratio, approx_kl, ratio_min, ratio_max = sums.tolist()
    return PolicySums(tokens, total, low + high, low, high, ratio, approx_kl, ratio_min, ratio_max)
