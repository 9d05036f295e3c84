"""Reference logprobs from Hugging Face models, on CPU or GPU."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from transformers import PreTrainedModel

from quatrain.models.device import pick_device, set_threads
from quatrain.models.loading import load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs
from quatrain.models.request_checks import ModelLimits
from quatrain.reference.backends.base import LoadedModel

# Padded tokens of one forward pass. Beyond about a thousand, two CPU cores gain nothing and pad more; a GPU wants more.
_TOKEN_BUDGET = {"cpu": 1024, "cuda": 16384}


class TransformersBackend:
    """`device` is auto, cpu or cuda; `threads` bounds the CPU threads of the process, 0 leaves them."""

    needs_weights = True

    def __init__(self, device: str, *, threads: int = 0) -> None:
        set_threads(threads)
        self._device = pick_device(device)

    def load(self, folder: Path | None, dtype: str) -> LoadedModel:
        """The model in `folder`."""
        assert folder is not None
        model = load_causal_lm(folder, dtype=dtype, device=self._device)
        return _Model(model, _TOKEN_BUDGET[self._device.type])


@dataclass(frozen=True)
class _Model:
    model: PreTrainedModel
    token_budget: int

    @property
    def limits(self) -> ModelLimits:
        return ModelLimits(*vocabulary_and_positions(self.model))

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.parameters())

    def logprobs(
        self, prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], temperature: float
    ) -> list[np.ndarray]:
        return completion_logprobs(
            self.model, prompts, completions, temperature=temperature, token_budget=self.token_budget
        )
