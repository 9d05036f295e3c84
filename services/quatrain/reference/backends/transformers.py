"""Reference logprobs from Hugging Face models, on CPU or GPU."""

import math
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from transformers import PreTrainedModel
from typing_extensions import override

from quatrain.models.device import pick_device, set_threads
from quatrain.models.loading import load_causal_lm, vocabulary_and_positions
from quatrain.models.logprobs import completion_logprobs
from quatrain.models.model_runner import Fetch, ModelRunner
from quatrain.models.request_checks import ModelLimits
from quatrain.reference.backends.base import Backend, Request, Result
from quatrain.reference.backends.budget import MemoryBudget

# Padded tokens of one forward pass. Beyond about a thousand, two CPU cores gain nothing and pad more; a GPU wants more.
_TOKEN_BUDGET = {"cpu": 1024, "cuda": 16384}


class TransformersBackend(Backend):
    """A backend that computes one request at a time and alone.

    `device` is auto, cpu or cuda; `threads` bounds the CPU threads of the process, 0 leaves them.
    """

    def __init__(
        self,
        fetch: Fetch,
        *,
        device: str = "auto",
        threads: int = 0,
        memory_bytes: int = 32 * 2**30,
        queue_size: int = 8,
        stuck_after: float = math.inf,
    ) -> None:
        set_threads(threads)
        self._device = pick_device(device)
        memory = MemoryBudget(self._load, fetch, memory_bytes)
        self._runner = ModelRunner(memory, fetch, queue_size=queue_size, stuck_after=stuck_after)

    @override
    async def compute(self, request: Request) -> Result:
        return await self._runner.run(request.job, request.model, request.dtype, partial(_compute, request))

    @override
    async def watch(self) -> None:
        await self._runner.watch()

    @override
    async def close(self) -> None:
        self._runner.close()

    def _load(self, folder: Path, dtype: str) -> "_Model":
        return _Model(load_causal_lm(folder, dtype=dtype, device=self._device), _TOKEN_BUDGET[self._device.type])


@dataclass(frozen=True)
class _Model:
    model: PreTrainedModel
    token_budget: int

    @property
    def size_bytes(self) -> int:
        return sum(tensor.numel() * tensor.element_size() for tensor in self.model.parameters())


def _compute(request: Request, loaded: _Model) -> Result:
    rows = request.rows_within(ModelLimits(*vocabulary_and_positions(loaded.model)))
    started = time.monotonic()
    logprobs = completion_logprobs(
        loaded.model,
        rows.prompts,
        rows.completions,
        temperature=request.temperature,
        token_budget=loaded.token_budget,
    )
    return Result(logprobs, time.monotonic() - started)
