"""What computes reference logprobs, what it is asked and what it answers."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from quatrain.models.request_checks import ModelLimits, RequestCheck
from quatrain.refs import ModelRef


@dataclass(frozen=True)
class Rows:
    """Token ids: prompts, and one completion for each."""

    prompts: list[npt.NDArray[np.int32]]
    completions: list[npt.NDArray[np.int32]]


@dataclass(frozen=True)
class Request:
    """Rows for one model; `dtype` is float32 or bfloat16."""

    job: str
    model: ModelRef
    unchecked: Rows
    """The rows before they are known to fit the model; backends read them through `rows_within`."""
    temperature: float
    dtype: str

    def rows_within(self, limits: ModelLimits) -> Rows:
        """Return the rows, which are known to fit a model with these limits.

        Raises InvalidInput for token ids outside the vocabulary and rows longer than the positions.
        """
        check = RequestCheck("Reference", model="model")
        rows = self.unchecked
        for row, (prompt, completion) in enumerate(zip(rows.prompts, rows.completions, strict=True)):
            check.require_known(prompt, limits, "prompt_ids", f"row {row}")
            check.require_known(completion, limits, "completion_ids", f"row {row}")
            length = len(prompt) + len(completion)
            check.require(
                limits.has_room(length),
                "completion_ids",
                f"row {row} has {length} tokens, but the model has {limits.positions} positions",
            )
        check.raise_if_wrong()
        return rows


@dataclass(frozen=True)
class Result:
    """One logprob for each completion token, row by row, and the seconds that the model computed."""

    logprobs: list[npt.NDArray[np.float32]]
    compute_seconds: float


class Backend(Protocol):
    """A source of logprobs under frozen models, which it fetches itself.

        result = await backend.compute(Request("job-1", model, Rows(prompts, completions), 1.0, "float32"))

    The methods are called from one event loop, which none of them may block; many requests may be in flight at once.
    The rows come from `Request.rows_within`, so that no model reads ids or lengths that it does not know. Cancelling
    the task that awaits `compute` abandons the request: it is never begun, or its result is dropped.
    """

    async def compute(self, request: Request) -> Result:
        """Return the logprob of each completion token under softmax(logits / temperature), full vocabulary.

        Raises InvalidInput (the model cannot read the rows), NotFound, Corrupt, Unavailable (the model cannot be
        fetched), InvalidData (it cannot be loaded), Overloaded (too many requests wait).
        """
        ...

    async def watch(self) -> None:
        """Raise Unavailable as soon as the backend hangs, which ends the process; never return."""
        ...

    async def close(self) -> None:
        """Take no more requests, and give back what the backend holds."""
        ...
