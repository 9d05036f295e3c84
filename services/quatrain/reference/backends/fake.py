"""A reference without a model: every token has the same probability, whatever the temperature."""

import math
import time
from collections.abc import Sequence

import numpy as np
from typing_extensions import override

from quatrain.models.request_checks import ModelLimits
from quatrain.process.model_thread import ModelThread
from quatrain.reference.backends.base import Backend, Request, Result, Rows

_SYMBOLS = 256


class FakeBackend(Backend):
    """A backend that computes one request at a time, in a thread."""

    def __init__(self, *, queue_size: int = 8, stuck_after: float = math.inf) -> None:
        self._thread = ModelThread(queue_size, stuck_after=stuck_after)

    @override
    async def compute(self, request: Request) -> Result:
        return await self._thread.run(self._compute, request.rows_within(ModelLimits()), request.temperature)

    @override
    async def watch(self) -> None:
        await self._thread.watch()

    @override
    async def close(self) -> None:
        self._thread.close()

    def logprobs(
        self, prompts: Sequence[np.ndarray], completions: Sequence[np.ndarray], temperature: float
    ) -> list[np.ndarray]:
        """Return one logprob for each completion token. Called in the thread."""
        return [np.full(len(row), -math.log(_SYMBOLS), dtype=np.float32) for row in completions]

    def _compute(self, rows: Rows, temperature: float) -> Result:
        started = time.monotonic()
        return Result(self.logprobs(rows.prompts, rows.completions, temperature), time.monotonic() - started)
