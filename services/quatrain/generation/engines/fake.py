"""An engine without a model: deterministic, exact about its own distribution, as slow as configured.

Each completion draws its symbols from the ids of its own prompt, so whatever it says lies in every vocabulary that the
prompt lies in. Where end-of-sequence counts, each token is one with probability 1/8.
"""

import math
import time

import numpy as np
from typing_extensions import override

from quatrain.config import ProcessConfig
from quatrain.generation.engines.base import Capabilities, Chunk, Completion, Engine, Request, Result, Sampling
from quatrain.generation.engines.uniforms import uniforms
from quatrain.models.model_runner import Fetch
from quatrain.models.request_checks import ModelLimits
from quatrain.process.model_thread import ModelThread

_EOS_PROBABILITY = 1 / 8


class FakeEngine(Engine):
    """An engine that computes one chunk at a time, in a thread; `latency` is seconds for each chunk."""

    def __init__(
        self, latency: float = 0.0, *, job_slots: int = 1, queue_size: int = 8, stuck_after: float = math.inf
    ) -> None:
        self.job_slots = job_slots
        self._latency = latency
        self._thread = ModelThread(queue_size, stuck_after=stuck_after)

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities("fake", exact_logprobs=True, device="cpu", job_slots=self.job_slots)

    @override
    async def generate(self, request: Request) -> Result:
        return await self._thread.run(self._compute, request.chunk_within(ModelLimits()))

    @override
    async def watch(self) -> None:
        await self._thread.watch()

    @override
    async def close(self) -> None:
        self._thread.close()

    def sample(self, chunk: Chunk) -> list[Completion]:
        """Return one completion for each prompt. Called in the thread."""
        if self._latency:
            time.sleep(self._latency)
        return [
            _complete(prompt, seed, chunk.sampling) for prompt, seed in zip(chunk.prompts, chunk.seeds, strict=True)
        ]

    def _compute(self, chunk: Chunk) -> Result:
        started = time.monotonic()
        return Result(self.sample(chunk), time.monotonic() - started)


def make(config: ProcessConfig, fetch: Fetch) -> FakeEngine:
    """Return the engine as configured. It needs no weights."""
    settings = config.generation
    return FakeEngine(
        settings.fake_latency,
        job_slots=settings.job_slots,
        queue_size=settings.queue_size,
        stuck_after=config.compute.stuck_after,
    )


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
