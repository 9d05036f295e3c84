"""What computes reference logprobs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quatrain.models.request_checks import ModelLimits


class LoadedModel(Protocol):
    """One frozen model, ready. Used by one thread."""

    @property
    def limits(self) -> ModelLimits:
        """What it can read."""
        ...

    @property
    def size_bytes(self) -> int:
        """Memory that the weights take."""
        ...

    def logprobs(
        self, prompts: Sequence[npt.NDArray[np.int32]], completions: Sequence[npt.NDArray[np.int32]], temperature: float
    ) -> list[npt.NDArray[np.float32]]:
        """Logprob of each completion token under softmax(logits / temperature), full vocabulary, row by row."""
        ...


class Backend(Protocol):
    """Makes loaded models."""

    @property
    def needs_weights(self) -> bool:
        """Whether `load` reads a model folder."""
        ...

    def load(self, folder: Path | None, dtype: str) -> LoadedModel:
        """The model in `folder` (None where no weights are needed). Raises InvalidInput, InvalidData, Corrupt."""
        ...
