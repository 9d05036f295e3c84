"""An engine without a model: deterministic, exact about its own distribution, as slow as it is told to be.

Each completion draws its symbols from the ids of its own prompt, so whatever it says lies in every vocabulary that the
prompt lies in. Where end-of-sequence counts, each token is one with probability 1/8.
"""

import time
from pathlib import Path

import numpy as np

from quatrain.generation.engines.base import Chunk, Completion, LoadedPolicy, Sampling
from quatrain.generation.engines.uniforms import uniforms
from quatrain.models.request_checks import ModelLimits

_EOS_PROBABILITY = 1 / 8


class FakeEngine:
    """See the module; `latency` is seconds for each chunk."""

    name = "fake"
    exact_logprobs = True
    device = "cpu"
    needs_weights = False

    def __init__(self, latency: float = 0.0) -> None:
        self._latency = latency

    def load(self, folder: Path | None, dtype: str, recycle: LoadedPolicy | None) -> LoadedPolicy:
        """A policy that is the same whatever the version."""
        return _FakePolicy(self._latency)


class _FakePolicy:
    limits = ModelLimits()

    def __init__(self, latency: float) -> None:
        self._latency = latency

    def generate(self, chunk: Chunk) -> list[Completion]:
        if self._latency:
            time.sleep(self._latency)
        return [
            _complete(prompt, seed, chunk.sampling) for prompt, seed in zip(chunk.prompts, chunk.seeds, strict=True)
        ]


def _complete(prompt: np.ndarray, seed: int, sampling: Sampling) -> Completion:
    ends = () if sampling.ignore_eos else sampling.eos_token_ids
    symbols = np.setdiff1d(prompt, ends)
    end_probability = 0.0 if not ends else _EOS_PROBABILITY if len(symbols) else 1.0
    draws = uniforms(seed, sampling.max_new_tokens)
    ended = np.flatnonzero(draws < end_probability)
    draws = draws[: ended[0]] if len(ended) else draws
    chosen = ((draws - end_probability) / (1 - end_probability) * len(symbols)).astype(np.int64)
    tokens = symbols[chosen]
    logprobs = np.full(len(draws), np.log((1 - end_probability) / len(symbols))) if len(draws) else np.empty(0)
    if len(ended):
        tokens, logprobs = np.append(tokens, ends[0]), np.append(logprobs, np.log(end_probability))
    return Completion(
        token_ids=tokens.astype(np.int32),
        logprobs=logprobs.astype(np.float32),
        finish_reason="stop" if len(ended) else "length",
    )
