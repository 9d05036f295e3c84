"""Metrics of a PPO step under their public names. Shapes: B sequences, T completion positions.

A metric that is undefined for a batch is None, never 0 and never NaN. Means are over real tokens or over sequences,
as the name says; padding never dilutes one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor

from quatrain.algorithms.kl import k1, k3
from quatrain.algorithms.lengths import LengthBaseline
from quatrain.algorithms.losses import PolicySums, ValueSums, log_ratio
from quatrain.algorithms.statistics import correlation, mean, percentile, standard_deviation, standard_error

Metrics = dict[str, float | None]


@dataclass(frozen=True)
class StepBatch:
    """The rollouts of a step as they are known before training, without refused and skipped samples.

    Attributes:
        completions: Token ids of each completion, the end of sequence included.
        stopped: Whether each finish reason is `stop`.
        scores: Composed score of each sample.
        terms: Reward terms by name, one value a sample; None where a term does not apply.
        logprobs_BT: Proximal logprobs l, recomputed at the start of the step.
        sampler_logprobs_BT: Logprobs b of the version that sampled.
        ref_logprobs_BT: Reference logprobs q.
        mask_BT: True for real tokens.
        entropy_BT: Entropy of the policy, from the pass that computes l.
        beta: KL coefficient of this step.
        staleness: Policy versions that each sample is behind.
        refused: Samples of the step that were refused.
        skipped: Samples of the step that were skipped.
    """

    completions: Sequence[Sequence[int]]
    stopped: Sequence[bool]
    scores: Sequence[float]
    terms: Mapping[str, Sequence[float | None]]
    logprobs_BT: Tensor
    sampler_logprobs_BT: Tensor
    ref_logprobs_BT: Tensor
    mask_BT: Tensor
    entropy_BT: Tensor
    beta: float
    staleness: Sequence[int] = field(default_factory=tuple)
    refused: int = 0
    skipped: int = 0


def batch_metrics(batch: StepBatch, baseline: LengthBaseline) -> tuple[Metrics, LengthBaseline]:
    """Return reward/*, kl/*, completions/*, sampler/* and policy/entropy of a step, and the grown length baseline."""
    lengths = [len(completion) for completion in batch.completions]
    baseline = baseline.add(lengths, batch.scores)
    metrics = {
        **reward_metrics(batch),
        "reward/length_explained": baseline.explained(lengths, batch.scores),
        **kl_metrics(batch),
        **completion_metrics(batch.completions, batch.stopped),
        **sampler_metrics(batch),
        "policy/entropy": _token_mean(batch.entropy_BT, batch.mask_BT),
    }
    return metrics, baseline


def reward_metrics(batch: StepBatch) -> Metrics:
    """Return reward/* except reward/length_explained. `kl_penalty` is in reward units per sequence."""
    score_mean = mean(batch.scores)
    penalty = _sequence_sums(-batch.beta * k1(batch.logprobs_BT, batch.ref_logprobs_BT), batch.mask_BT)
    kl_penalty = mean(penalty)
    metrics: Metrics = {
        "reward/score_mean": score_mean,
        "reward/score_std": standard_deviation(batch.scores),
        "reward/kl_penalty": kl_penalty,
        "reward/total": score_mean + kl_penalty if score_mean is not None and kl_penalty is not None else None,
        "reward/length_corr": correlation(batch.scores, [len(completion) for completion in batch.completions]),
        "reward/refused": float(batch.refused),
        "reward/skipped": float(batch.skipped),
    }
    terms = {
        f"reward/{name}_mean": mean([value for value in values if value is not None])
        for name, values in batch.terms.items()
    }
    # A term called `score` must not take the place of the composed score.
    return terms | metrics


def kl_metrics(batch: StepBatch) -> Metrics:
    """Return kl/*, all from b - q: nats per sequence (`_seq`) or per token (`_token`), and the coefficient."""
    divergence_BT = k1(batch.sampler_logprobs_BT.double(), batch.ref_logprobs_BT.double())
    by_sequence = _sequence_sums(divergence_BT, batch.mask_BT)
    k3_BT = k3(batch.sampler_logprobs_BT.double(), batch.ref_logprobs_BT.double())
    return {
        "kl/ref_seq": mean(by_sequence),
        "kl/ref_seq_se": standard_error(by_sequence),
        "kl/ref_token": _token_mean(divergence_BT, batch.mask_BT),
        "kl/ref_k3_token": _token_mean(k3_BT, batch.mask_BT),
        "kl/coef": batch.beta,
    }


def completion_metrics(completions: Sequence[Sequence[int]], stopped: Sequence[bool]) -> Metrics:
    """Return completions/*: lengths in tokens, shares in 0..1."""
    lengths = [float(len(completion)) for completion in completions]
    bigrams = [pair for completion in completions for pair in pairwise(completion)]
    distinct = len({tuple(completion) for completion in completions})
    return {
        "completions/length_mean": mean(lengths),
        "completions/length_min": min(lengths, default=None),
        "completions/length_max": max(lengths, default=None),
        "completions/length_p95": percentile(lengths, 0.95),
        "completions/eos_rate": mean([float(stop) for stop in stopped]),
        "completions/distinct_2": len(set(bigrams)) / len(bigrams) if bigrams else None,
        "completions/duplicate_rate": 1.0 - distinct / len(completions) if completions else None,
    }


def sampler_metrics(batch: StepBatch) -> Metrics:
    """Return sampler/*: |l - b| in nats, effective sample size (0..1) of the untruncated weights, versions behind.

    In a stale batch l and b are of different versions: there the mismatch is not defined.
    """
    stale = any(batch.staleness)
    measured = None if stale else mismatch(batch.logprobs_BT, batch.sampler_logprobs_BT, batch.mask_BT)
    weights = log_ratio(batch.logprobs_BT.double(), batch.sampler_logprobs_BT.double())[batch.mask_BT].exp()
    ess = weights.sum().square() / (weights.numel() * weights.square().sum()) if weights.numel() else None
    return {
        "sampler/mismatch_mean": measured[0] if measured else None,
        "sampler/mismatch_max": measured[1] if measured else None,
        "sampler/ess": ess.item() if ess is not None else None,
        "sampler/staleness": mean([float(versions) for versions in batch.staleness]) if batch.staleness else 0.0,
    }


def mismatch(logprobs_BT: Tensor, sampler_logprobs_BT: Tensor, mask_BT: Tensor) -> tuple[float, float] | None:
    """Return mean and largest |l - b| over real tokens, in nats, both of the same weights; None without tokens."""
    difference = (logprobs_BT.double() - sampler_logprobs_BT.double())[mask_BT].abs()
    return (difference.mean().item(), difference.max().item()) if difference.numel() else None


def explained_variance(values_BT: Tensor, returns_BT: Tensor, mask_BT: Tensor) -> float | None:
    """Return 1 - Var(R - V) / Var(R) over real tokens, with the values of the rollout; None if Var(R) < 1e-12."""
    returns = returns_BT.double()[mask_BT]
    if returns.numel() < 2:
        return None
    variance = returns.var().item()
    if variance < 1e-12:
        return None
    return 1.0 - (returns - values_BT.double()[mask_BT]).var().item() / variance


@dataclass(frozen=True)
class UpdateSums:
    """Sums over the updates of a step; `+` joins them. `kl` and `entropy` are sums over policy tokens."""

    policy: PolicySums = field(default_factory=PolicySums)
    value: ValueSums = field(default_factory=ValueSums)
    kl: float = 0.0
    entropy: float = 0.0

    def __add__(self, other: "UpdateSums") -> "UpdateSums":
        return UpdateSums(
            self.policy + other.policy, self.value + other.value, self.kl + other.kl, self.entropy + other.entropy
        )


def training_metrics(
    sums: UpdateSums, first: PolicySums | None, kl_coef: float = 0.0, entropy_coef: float = 0.0
) -> Metrics:
    """Return policy/*, value/* and loss/total of all updates of a step, token-weighted.

    Args:
        sums: Sums over all updates of the step.
        first: Sums of the first minibatch of the first epoch; None when the policy was not updated.
        kl_coef: beta when the KL penalty is a loss, else 0.
        entropy_coef: Coefficient of the entropy bonus.
    """
    policy, value = sums.policy, sums.value
    tokens = policy.tokens
    policy_loss = _share(policy.loss, tokens)
    value_loss = _share(value.loss, value.tokens)
    parts = [
        policy_loss,
        _share(kl_coef * sums.kl, tokens),
        value_loss,
        _share(-entropy_coef * sums.entropy, tokens),
    ]
    known = [part for part in parts if part is not None]
    return {
        "policy/loss": policy_loss,
        "policy/clip_fraction": _share(policy.clipped, tokens),
        "policy/clip_fraction_low": _share(policy.clipped_low, tokens),
        "policy/clip_fraction_high": _share(policy.clipped_high, tokens),
        "policy/clip_fraction_first": _share(first.clipped, first.tokens) if first else None,
        "policy/ratio_dev_first": max(first.ratio_max - 1.0, 1.0 - first.ratio_min) if first and first.tokens else None,
        "policy/ratio_mean": _share(policy.ratio, tokens),
        "policy/ratio_min": policy.ratio_min if tokens else None,
        "policy/ratio_max": policy.ratio_max if tokens else None,
        "policy/approx_kl": _share(policy.approx_kl, tokens),
        "value/loss": value_loss,
        "value/clip_fraction": _share(value.clipped, value.tokens),
        "loss/total": sum(known) if known else None,
    }


def _share(total: float, count: int) -> float | None:
    return total / count if count else None


def _sequence_sums(x_BT: Tensor, mask_BT: Tensor) -> list[float]:
    sums_B = torch.where(mask_BT, x_BT.double(), torch.zeros_like(x_BT, dtype=torch.float64)).sum(dim=1)
    return [float(value) for value in sums_B.tolist()]


def _token_mean(x_BT: Tensor, mask_BT: Tensor) -> float | None:
    real = x_BT.double()[mask_BT]
    return float(real.mean().item()) if real.numel() else None
