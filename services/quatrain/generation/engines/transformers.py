"""The engine that runs Hugging Face models with transformers, on CPU or GPU."""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from transformers import PreTrainedModel
from typing_extensions import override

from quatrain.config import ProcessConfig
from quatrain.errors import InvalidData
from quatrain.generation.engines import decoding
from quatrain.generation.engines.base import Capabilities, Chunk, Completion, Engine, Request, Result, Sampling
from quatrain.generation.engines.slots import PolicySlots
from quatrain.models.device import pick_device, set_threads
from quatrain.models.loading import copy_weights, load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs
from quatrain.models.model_runner import Fetch, ModelRunner
from quatrain.models.request_checks import ModelLimits


class TransformersEngine(Engine):
    """An engine that computes one chunk at a time and alone, so that nothing depends on what else is in flight.

    `device` is auto, cpu or cuda; `threads` bounds the CPU threads of the process, 0 leaves them.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        device: str = "auto",
        threads: int = 0,
        job_slots: int = 1,
        queue_size: int = 8,
        stuck_after: float = math.inf,
    ) -> None:
        set_threads(threads)
        self._device = pick_device(device)
        self._job_slots = job_slots
        slots = PolicySlots(self.load, fetch, job_slots)
        self._runner = ModelRunner(slots, fetch, queue_size=queue_size, stuck_after=stuck_after)

    @override
    def capabilities(self) -> Capabilities:
        return Capabilities("transformers", exact_logprobs=True, device=str(self._device), job_slots=self._job_slots)

    @override
    async def generate(self, request: Request) -> Result:
        return await self._runner.run(request.job, request.policy, request.dtype, partial(_compute, request))

    @override
    async def watch(self) -> None:
        await self._runner.watch()

    @override
    async def close(self) -> None:
        self._runner.close()

    def load(self, folder: Path, dtype: str, recycle: "TransformersPolicy | None") -> "TransformersPolicy":
        """Return the policy in `folder`.

        Its weights are copied into the module of `recycle` where both have the same config. Raises InvalidInput,
        InvalidData, Corrupt.
        """
        config = (folder / "config.json").read_bytes() if (folder / "config.json").is_file() else b""
        if recycle is not None and recycle.built_as == (config, dtype) and copy_weights(recycle.model, folder):
            return recycle
        model = load_causal_lm(folder, dtype=dtype, device=self._device)
        _check_decoding(model, folder)
        return TransformersPolicy(model, (config, dtype))


def make(config: ProcessConfig, fetch: Fetch) -> TransformersEngine:
    """Return the engine as configured. Raises InvalidInput for a device that is not there."""
    return TransformersEngine(
        fetch,
        device=config.compute.device,
        threads=config.compute.threads,
        job_slots=config.generation.job_slots,
        queue_size=config.generation.queue_size,
        stuck_after=config.compute.stuck_after,
    )


@dataclass(frozen=True)
class TransformersPolicy:
    """A model on its device; `built_as` is its config.json and compute dtype."""

    model: PreTrainedModel
    built_as: tuple[bytes, str]

    @property
    def limits(self) -> ModelLimits:
        """Return what the model can read.

        Attention with a sliding window is the same as full attention as long as the window holds everything; decoding
        beyond it is not supported.
        """
        vocabulary, positions = vocabulary_and_positions(self.model)
        window = sliding_window(self.model)
        return ModelLimits(vocabulary, positions if window is None else min(positions, window))

    def generate(self, chunk: Chunk) -> list[Completion]:
        """Sample the chunk."""
        return decoding.generate(self.model, chunk)


def _compute(request: Request, policy: TransformersPolicy) -> Result:
    chunk = request.chunk_within(policy.limits)
    started = time.monotonic()
    return Result(policy.generate(chunk), time.monotonic() - started)


def sliding_window(model: PreTrainedModel) -> int | None:
    """Return the width of the model's attention window in tokens, None where every layer sees everything."""
    config = model.config.get_text_config()
    layer_types = getattr(config, "layer_types", None)
    if layer_types is not None and "sliding_attention" not in layer_types:
        return None
    if not getattr(config, "use_sliding_window", True):
        return None
    window = getattr(config, "sliding_window", None)
    return int(window) if window else None


def _check_decoding(model: PreTrainedModel, folder: Path) -> None:
    """Raise InvalidData if a few decoded tokens differ from a plain forward pass.

    An architecture that keeps more state than keys and values, or that reads the mask in another way, must not be
    sampled from silently.
    """
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
