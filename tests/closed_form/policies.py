"""A policy as a function from prefixes to next-symbol logprobs, read from a model folder in float64."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

# Prefixes of completions, [N, t] (t may be 0), to the logprobs of the next symbol, [N, V] in float64.
Policy = Callable[[Tensor], Tensor]


def uniform_policy(vocab_size: int) -> Policy:
    """Return the policy that a zero output head makes."""
    return lambda prefixes: torch.full((len(prefixes), vocab_size), -math.log(vocab_size), dtype=torch.float64)


def folder_policy(
    folder: Path, prompt_ids: Sequence[int], vocab_size: int, *, temperature: float = 1.0, rows: int = 4096
) -> Policy:
    """Return the policy of a Hugging Face causal LM folder after a prompt.

    Raises:
        ValueError: The prompt is empty, or the model's vocabulary is not exactly `vocab_size`.
    """
    if not prompt_ids:
        raise ValueError("the prompt is empty: a model needs at least one token to predict from")
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float64)  # in evaluation mode
    if model.config.vocab_size != vocab_size:
        raise ValueError(f"{folder} has {model.config.vocab_size} symbols, not {vocab_size}")
    prompt = torch.tensor(prompt_ids)

    @torch.inference_mode()
    def next_logprobs(prefixes: Tensor) -> Tensor:
        chunks = []
        for part in torch.split(prefixes, rows):
            ids = torch.cat([prompt.expand(len(part), -1), part], dim=1)
            logits = model(input_ids=ids, use_cache=False, logits_to_keep=1).logits[:, -1]
            chunks.append(torch.log_softmax(logits / temperature, dim=-1))
        return torch.cat(chunks)

    return next_logprobs
