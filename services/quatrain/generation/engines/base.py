"""What an inference engine is."""

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from quatrain.models.request_checks import ModelLimits, RequestCheck
from quatrain.refs import ModelRef

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled: from softmax(logits / temperature) over the full vocabulary, nothing else.

    A completion ends with the first id of `eos_token_ids` that is sampled (none with `ignore_eos`), or after
    `max_new_tokens` tokens.
    """

    max_new_tokens: int
    temperature: float
    ignore_eos: bool
    eos_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class Chunk:
    """Prompts of one request: one row of token ids and one 64-bit seed for each."""

    prompts: list[npt.NDArray[np.int32]]
    seeds: list[int]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """One sampled completion; `stop` means that its last token is an end-of-sequence token."""

    token_ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    finish_reason: FinishReason


@dataclass(frozen=True)
class Request:
    """One chunk for one policy; `dtype` is float32 or bfloat16."""

    job: str
    policy: ModelRef
    unchecked: Chunk
    """The chunk before it is known to fit the policy; engines read it through `chunk_within`."""
    dtype: str

    def chunk_within(self, limits: ModelLimits) -> Chunk:
        """Return the chunk, which is known to fit a policy with these limits.

        Raises InvalidInput for token ids outside the vocabulary and prompts that leave no room to answer.
        """
        chunk, new_tokens = self.unchecked, self.unchecked.sampling.max_new_tokens
        check = RequestCheck("Generation", model="policy")
        for row, prompt in enumerate(chunk.prompts):
            check.require_known(prompt, limits, "prompt_ids", f"row {row}")
            check.require(
                limits.has_room(len(prompt) + new_tokens),
                "prompt_ids",
                f"row {row}: {len(prompt)} prompt tokens and {new_tokens} new ones exceed the policy's "
                f"{limits.positions} positions",
            )
        if not chunk.sampling.ignore_eos:
            ends = np.array(chunk.sampling.eos_token_ids, np.int32)
            check.require_known(ends, limits, "sampling.eos_token_ids", "it")
        check.raise_if_wrong()
        return chunk


@dataclass(frozen=True)
class Result:
    """What became of a chunk."""

    completions: list[Completion]
    """In the order of the prompts."""
    compute_seconds: float
    """Seconds that the model computed for this chunk; chunks that are computed together count the same seconds."""


@dataclass(frozen=True)
class Capabilities:
    """What a replica can do."""

    engine: str
    """The engine's name in the configuration."""
    exact_logprobs: bool
    """Whether logprobs equal the learner's to float32 accuracy."""
    device: str
    job_slots: int
    """Jobs whose policies fit at the same time."""


class Engine(Protocol):
    """A sampler of completions from policy versions. It alone decides how: one chunk after the other, or many together.

        engine = make_engine(config, cache.fetch)
        result = await engine.generate(Request("job-1", policy, chunk, "float32"))
        await engine.close()

    The methods are called from one event loop, which none of them may block. An engine fetches its policies itself and
    decides which of them stay in memory.

    - Many chunks may be in flight at once, of several jobs and policies. A chunk that the engine cannot take now is
      refused at once with Overloaded, and its caller tries again.
    - A sample depends on its prompt, its seed and the policy. A deterministic engine computes each chunk alone, so that
      the same request gives the same bits on the same machine.
    - The tokens come from `Request.chunk_within`, which asks for the limits of the policy. No engine can therefore give
      a policy ids or lengths that the policy does not know.
    - A policy that cannot be fetched or loaded fails the chunks that name it, and no others.
    - Cancelling the task that awaits `generate` abandons the chunk: it is never begun, or its result is dropped. Other
      chunks are not affected.
    """

    def capabilities(self) -> Capabilities:
        """Return what this engine can do; the same as long as the process lives."""
        ...

    async def generate(self, request: Request) -> Result:
        """Return one completion for each prompt.

        Raises InvalidInput (the policy cannot read the chunk), NotFound, Corrupt, Unavailable (the policy cannot be
        fetched), InvalidData (it cannot be loaded), Overloaded (too many chunks wait), RunFailed (its logits are not
        finite).
        """
        ...

    async def watch(self) -> None:
        """Raise Unavailable as soon as the engine hangs, which ends the process; never return."""
        ...

    async def close(self) -> None:
        """Take no more chunks, and give back what the engine holds."""
        ...
