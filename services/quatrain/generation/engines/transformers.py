"""The engine that runs Hugging Face models with transformers, on CPU or GPU."""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel
from typing_extensions import override

from quatrain.config import ProcessConfig
from quatrain.digests import sha256_hex
from quatrain.errors import InvalidData
from quatrain.generation.engines import decoding
from quatrain.generation.engines.attention_masks import sliding_window
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
        identity = _identity(folder, dtype)
        if recycle is not None and recycle.built_as == identity and copy_weights(recycle.model, folder):
            return recycle
        model = load_causal_lm(folder, dtype=dtype, device=self._device)
        _check_decoding(model, folder)
        return TransformersPolicy(model, identity)


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
    """A model on its device; `built_as` is all that its module depends on besides the weights."""

    model: PreTrainedModel
    built_as: str

    @property
    def limits(self) -> ModelLimits:
        """Return what the model can read."""
        return ModelLimits(*vocabulary_and_positions(self.model))

    def generate(self, chunk: Chunk) -> list[Completion]:
        """Sample the chunk."""
        return decoding.generate(self.model, chunk)


def _compute(request: Request, policy: TransformersPolicy) -> Result:
    chunk = request.chunk_within(policy.limits)
    started = time.monotonic()
    return Result(policy.generate(chunk), time.monotonic() - started)


def _identity(folder: Path, dtype: str) -> str:
    """Return what a module is built from besides its weights: config, known ids, dtype."""
    names = ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")
    files = [(folder / name).read_bytes() if (folder / name).is_file() else b"" for name in names]
    return " ".join([dtype, *map(sha256_hex, files)])


def _check_decoding(model: PreTrainedModel, folder: Path) -> None:
    """Raise InvalidData if a few decoded tokens differ from a plain forward pass.

    An architecture that keeps more state than keys and values, or that reads the mask in another way, must not be
    sampled from silently. Windows are tried narrow: at their real width the sequences would be long.
    """
    config: Any = model.config.get_text_config()
    if sliding_window(model) is None:
        _check_same(model, folder)
        return
    width = config.sliding_window
    try:
        config.sliding_window = 2
        _check_same(model, folder)
    finally:
        config.sliding_window = width


def _check_same(model: PreTrainedModel, folder: Path) -> None:
    prompts = [np.array([0, 1, 0], np.int32), np.array([1], np.int32)]
    sampling = Sampling(max_new_tokens=4, temperature=1.0, ignore_eos=True, eos_token_ids=())
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
