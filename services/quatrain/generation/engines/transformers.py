"""The engine that runs Hugging Face models with transformers, on CPU or GPU."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel

from quatrain.errors import InvalidData
from quatrain.generation.engines import decoding
from quatrain.generation.engines.base import Chunk, Completion, LoadedPolicy, Sampling
from quatrain.models.device import pick_device, set_threads
from quatrain.models.loading import copy_weights, load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs
from quatrain.models.request_checks import ModelLimits


class TransformersEngine:
    """See the module. `device` is auto, cpu or cuda; `threads` bounds the CPU threads of the process, 0 leaves them."""

    name = "transformers"
    exact_logprobs = True
    needs_weights = True

    def __init__(self, device: str, *, threads: int = 0) -> None:
        set_threads(threads)
        self._device = pick_device(device)

    @property
    def device(self) -> str:
        """Device in words."""
        return str(self._device)

    def load(self, folder: Path | None, dtype: str, recycle: LoadedPolicy | None) -> LoadedPolicy:
        """The policy in `folder`; weights are copied into the module of `recycle` where both have the same config."""
        assert folder is not None
        config = (folder / "config.json").read_bytes() if (folder / "config.json").is_file() else b""
        old = recycle if isinstance(recycle, TransformersPolicy) else None
        if old is not None and old.built_as == (config, dtype) and copy_weights(old.model, folder):
            return old
        model = load_causal_lm(folder, dtype=dtype, device=self._device)
        _check_decoding(model, folder)
        return TransformersPolicy(model, (config, dtype))


@dataclass(frozen=True)
class TransformersPolicy:
    """A model on its device; `built_as` is its config.json and compute dtype."""

    model: PreTrainedModel
    built_as: tuple[bytes, str]

    @property
    def limits(self) -> ModelLimits:
        """What it can read.

        Attention with a sliding window is the same as full attention as long as the window holds everything; decoding
        beyond it is not supported.
        """
        vocabulary, positions = vocabulary_and_positions(self.model)
        window = sliding_window(self.model)
        return ModelLimits(vocabulary, positions if window is None else min(positions, window))

    def generate(self, chunk: Chunk) -> list[Completion]:
        """Samples the chunk."""
        return decoding.generate(self.model, chunk)


def sliding_window(model: PreTrainedModel) -> int | None:
    """Width of the model's attention window in tokens, None where every layer sees everything."""
    config = model.config.get_text_config()
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and "sliding_attention" not in layer_types:
        return None
    if not getattr(config, "use_sliding_window", True):
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def _check_decoding(model: PreTrainedModel, folder: Path) -> None:
    """Decodes a few tokens and compares with a plain forward pass: an architecture that keeps more state than keys and
    values, or that reads the mask otherwise, must not be sampled from silently."""
    prompts = [np.array([0, 1], np.int32), np.array([1], np.int32)]
    sampling = Sampling(max_new_tokens=2, temperature=1.0, ignore_eos=True, eos_token_ids=())
    try:
        decoded = decoding.generate(model, Chunk(prompts, [1, 2], sampling))
    except (TypeError, ValueError, AttributeError, NotImplementedError) as error:
        raise InvalidData(f"{folder.name}: {type(model).__name__} cannot be decoded by this engine: {error}") from error
    plain = completion_logprobs(
        model, prompts, [row.token_ids for row in decoded], temperature=1.0, token_budget=1 << 16
    )
    tolerance = 1e-3 if model.dtype == torch.float32 else 0.1
    if any(not np.allclose(row.logprobs, other, atol=tolerance) for row, other in zip(decoded, plain, strict=True)):
        raise InvalidData(
            f"{folder.name}: {type(model).__name__} decoded token by token differs from its own forward pass, "
            "so this engine cannot sample from it."
        )
