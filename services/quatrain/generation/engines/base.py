"""What an inference engine is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from quatrain.models.request_checks import ModelLimits

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
    """Prompts that are computed together and with nothing else: one row of token ids and one 64-bit seed for each."""

    prompts: list[npt.NDArray[np.int32]]
    seeds: list[int]
    sampling: Sampling


@dataclass(frozen=True)
class Completion:
    """One sampled completion; `stop` means that its last token is an end-of-sequence token."""

    token_ids: npt.NDArray[np.int32]
    logprobs: npt.NDArray[np.float32]
    finish_reason: FinishReason


class LoadedPolicy(Protocol):
    """One policy version, ready to sample. Used by one thread."""

    @property
    def limits(self) -> ModelLimits:
        """What it can read."""
        ...

    def generate(self, chunk: Chunk) -> list[Completion]:
        """Samples the chunk, in the order of its prompts; the same chunk gives the same completions.

        A sample is drawn with its own seed only. Raises RunFailed when the policy's logits are not finite.
        """
        ...


class Engine(Protocol):
    """Makes loaded policies. Used by one thread, except for the properties."""

    @property
    def name(self) -> str:
        """Name in the configuration and in capabilities."""
        ...

    @property
    def exact_logprobs(self) -> bool:
        """Whether logprobs equal the learner's to float32 accuracy."""
        ...

    @property
    def device(self) -> str:
        """Device in words."""
        ...

    @property
    def needs_weights(self) -> bool:
        """Whether `load` reads a model folder."""
        ...

    def load(self, folder: Path | None, dtype: str, recycle: LoadedPolicy | None) -> LoadedPolicy:
        """The policy in `folder` (None where the engine needs no weights).

        `recycle` is a policy of this engine that nobody will use again; its memory may become the new one's. Raises
        InvalidInput, InvalidData, Corrupt.
        """
        ...
