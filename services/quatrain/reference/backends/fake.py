"""A reference without a model: every token has the same probability, whatever the temperature."""

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from quatrain.models.request_checks import ModelLimits
from quatrain.reference.backends.base import LoadedModel

_SYMBOLS = 256


class FakeBackend:
    """See the module."""

    needs_weights = False

    def load(self, folder: Path | None, dtype: str) -> LoadedModel:
        """A model that is the same whatever the folder."""
        return _UniformModel()


class _UniformModel:
    limits = ModelLimits()
    size_bytes = 0

    def logprobs(
        self, prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], temperature: float
    ) -> list[np.ndarray]:
        return [np.full(len(row), -math.log(_SYMBOLS), dtype=np.float32) for row in completions]
