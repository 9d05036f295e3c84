"""Reference logprobs without gRPC: checks a request, has its model pulled and loaded, and has the rows computed.

Fetching runs in worker threads; loading and computing run in the model thread, one request at a time and alone.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from quatrain.errors import RunFailed
from quatrain.models.model_runner import WeightsKey
from quatrain.models.request_checks import ModelLimits, RequestCheck
from quatrain.reference.backends.base import Backend
from quatrain.reference.models import LoadedModels
from quatrain.refs import ModelRef
from quatrain.rpc.worker import ModelThread


@dataclass(frozen=True)
class Request:
    """Rows of prompt and completion token ids; `dtype` is float32 or bfloat16."""

    job: str
    model: ModelRef
    prompts: list[npt.NDArray[np.int32]]
    completions: list[npt.NDArray[np.int32]]
    temperature: float
    dtype: str


@dataclass(frozen=True)
class Result:
    """One logprob for each completion token, row by row, and the seconds that the model computed."""

    logprobs: list[npt.NDArray[np.float32]]
    compute_seconds: float


class ReferenceService:
    """One replica: its models in memory and its model thread."""

    def __init__(
        self,
        backend: Backend,
        fetch: Callable[[str, str], Path],
        *,
        memory_bytes: int,
        queue_size: int,
        stuck_after: float = math.inf,
    ) -> None:
        """`fetch` gives a verified local folder for a model's URI and digest (`FolderCache.fetch`)."""
        self._backend = backend
        self._fetch = fetch
        self._models = LoadedModels(backend, fetch, memory_bytes)
        self._thread = ModelThread(queue_size, stuck_after=stuck_after)

    async def compute(self, request: Request) -> Result:
        """Logprobs of every completion token.

        Raises InvalidInput (the request), NotFound, Corrupt, Unavailable (its model), InvalidData (a model that cannot
        be loaded), Overloaded (queue full), RunFailed (logits that are not finite).
        """
        check_request(request)
        ref = request.model
        if self._backend.needs_weights and not self._models.holds(WeightsKey.of(ref, request.dtype)):
            await asyncio.to_thread(self._fetch, ref.uri, ref.digest)
        return await self._thread.run(self._compute, request)

    async def watch(self) -> None:
        """Raises Unavailable as soon as the model thread is stuck, else never ends."""
        await self._thread.watch()

    def close(self) -> None:
        """Takes no more requests."""
        self._thread.close()

    def _compute(self, request: Request) -> Result:
        model = self._models.model(request.model, request.dtype)
        check_against_model(request, model.limits)
        started = time.monotonic()
        logprobs = model.logprobs(request.prompts, request.completions, request.temperature)
        seconds = time.monotonic() - started
        if not all(np.isfinite(row).all() for row in logprobs):
            raise RunFailed("The reference model gives logits that are not finite; its weights hold NaN or infinity.")
        return Result(logprobs, seconds)


def check_request(request: Request) -> None:
    """Raise InvalidInput that names every field that is wrong whatever the model."""
    check = RequestCheck("Reference", model="model")
    check.require_basics(request.job, request.dtype, request.prompts)
    check.require(bool(request.model.uri), "model.uri", "must name the reference model")
    check.require(
        len(request.completions) == len(request.prompts),
        "completion_ids",
        f"{len(request.completions)} completions for {len(request.prompts)} prompts; give one for each",
    )
    check.require_temperature(request.temperature, "temperature")
    check.raise_if_wrong()


def check_against_model(request: Request, limits: ModelLimits) -> None:
    """Raise InvalidInput for token ids outside the model's vocabulary and rows longer than its positions."""
    check = RequestCheck("Reference", model="model")
    for row, (prompt, completion) in enumerate(zip(request.prompts, request.completions, strict=True)):
        check.require_known(prompt, limits, "prompt_ids", f"row {row}")
        check.require_known(completion, limits, "completion_ids", f"row {row}")
        length = len(prompt) + len(completion)
        check.require(
            limits.has_room(length),
            "completion_ids",
            f"row {row} has {length} tokens, but the model has {limits.positions} positions",
        )
    check.raise_if_wrong()
