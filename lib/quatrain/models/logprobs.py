"""Logprobs of given tokens: log of the softmax of logits / temperature over the ids of the tokenizer, in float32.

The output head runs only at positions that predict a completion token, in chunks of rows, so memory does not grow with
vocabulary x length.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from quatrain.models.output_head import OutputHead, output_head
from quatrain.models.sequences import (
    by_token_budget,
    completion_hidden_states,
    completion_targets,
    pad_completions,
)

# Logits held at once: 128 MiB in float32. With a vocabulary of 512 a chunk is 65,536 tokens, with 152,000 it is 220.
_CHUNK_LOGITS = 1 << 25


def head_logprobs(
    hidden_ND: torch.Tensor,
    head: OutputHead,
    targets_N: torch.Tensor,
    *,
    temperature: float,
    chunk: int | None = None,
    want_entropy: bool = True,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return logprob of each target and entropy of each distribution, both [N] float32 and differentiable.

    logprob = log_softmax(head.logits(hidden, temperature))[target]; entropy in nats. `chunk` bounds the tokens whose
    logits exist at once; with gradients, chunks beyond one are computed again in the backward pass instead of being
    kept. Without `want_entropy` the second tensor is empty.
    """
    if chunk is None:
        chunk = max(1, _CHUNK_LOGITS // head.size)
    if hidden_ND.shape[0] <= chunk:
        return _chunk_logprobs(hidden_ND, head, targets_N, temperature, want_entropy)
    parts = []
    for hidden, targets in zip(torch.split(hidden_ND, chunk), torch.split(targets_N, chunk), strict=True):
        if torch.is_grad_enabled():
            part = checkpoint(_chunk_logprobs, hidden, head, targets, temperature, want_entropy, use_reentrant=False)
        else:
            part = _chunk_logprobs(hidden, head, targets, temperature, want_entropy)
        parts.append(part)
    return torch.cat([part[0] for part in parts]), torch.cat([part[1] for part in parts])


def _chunk_logprobs(
    hidden_ND: torch.Tensor, head: OutputHead, targets_N: torch.Tensor, temperature: float, want_entropy: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    log_probabilities_NV = torch.log_softmax(head.logits(hidden_ND, temperature), dim=-1)
    logprobs_N = log_probabilities_NV.gather(1, targets_N[:, None])[:, 0]
    if not want_entropy:
        return logprobs_N, logprobs_N.new_empty(0)
    return logprobs_N, -(log_probabilities_NV.exp() * log_probabilities_NV).sum(dim=-1)


@torch.no_grad()
def completion_logprobs(
    model: PreTrainedModel,
    prompts: Sequence[np.ndarray],
    completions: Sequence[np.ndarray],
    *,
    temperature: float,
    token_budget: int,
) -> list[np.ndarray]:
    """Return the logprob of every completion token, one float32 array a row, in the order given.

    Rows are sorted by length into microbatches of at most `token_budget` padded tokens. A prompt holds at least one
    token, a completion may be empty.
    """
    lengths = [len(prompt) + len(completion) for prompt, completion in zip(prompts, completions, strict=True)]
    logprobs: list[np.ndarray] = [np.empty(0, np.float32)] * len(lengths)
    for rows in by_token_budget(lengths, token_budget):
        batch = pad_completions([prompts[i] for i in rows], [completions[i] for i in rows], device=model.device)
        flat_N, _ = head_logprobs(
            completion_hidden_states(model, batch),
            output_head(model),
            completion_targets(batch),
            temperature=temperature,
            want_entropy=False,
        )
        pieces = np.split(flat_N.cpu().numpy(), np.cumsum([len(completions[i]) for i in rows])[:-1])
        for row, piece in zip(rows, pieces, strict=True):
            logprobs[row] = piece.copy()
    return logprobs
