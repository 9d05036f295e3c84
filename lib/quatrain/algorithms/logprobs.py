"""Logprobs and entropy of given tokens, from logits. Shapes: B sequences, T positions, V vocabulary."""

import torch
from torch import Tensor


def token_logprobs(logits_BTV: Tensor, targets_BT: Tensor, temperature: float) -> Tensor:
    """Return log softmax(logits / temperature) at the targets, [B, T], in nats.

    Computed in float32 at least: in bfloat16 the logsumexp alone loses more than a PPO clip range. `logits[:, t]`
    must be the prediction *of* `targets[:, t]`, so the caller has already shifted. Any leading shape does, not only
    [B, T].
    """
    scaled_BTV = _scaled(logits_BTV, temperature)
    chosen_BT = scaled_BTV.gather(-1, targets_BT.long().unsqueeze(-1)).squeeze(-1)
    return chosen_BT - torch.logsumexp(scaled_BTV, dim=-1)


def entropy(logits_BTV: Tensor, temperature: float) -> Tensor:
    """Return the entropy of softmax(logits / temperature), [B, T], in nats.

    H = logsumexp(z) - sum_v softmax(z)_v z_v. Logits of minus infinity count as probability 0.
    """
    scaled_BTV = _scaled(logits_BTV, temperature)
    logprobs_BTV = torch.log_softmax(scaled_BTV, dim=-1)
    # 0 log 0 = 0, where the product of -inf and 0 would be NaN.
    finite_BTV = torch.where(torch.isneginf(logprobs_BTV), torch.zeros_like(logprobs_BTV), logprobs_BTV)
    return -(logprobs_BTV.exp() * finite_BTV).sum(dim=-1)


def _scaled(logits_BTV: Tensor, temperature: float) -> Tensor:
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it divides the logits and must be above 0")
    wide_BTV = logits_BTV if logits_BTV.dtype == torch.float64 else logits_BTV.float()
    return wide_BTV if temperature == 1.0 else wide_BTV / temperature
