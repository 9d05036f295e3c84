"""Checks of requests that bring rows of token ids to a model. A refusal names every wrong field, not only the first."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from quatrain.errors import FieldViolation, InvalidInput

DTYPES = ("float32", "bfloat16")
MAX_SHOWN = 5
"""How many violations the text of a refusal shows; its details hold all of them."""

Ints = npt.NDArray[np.int32]


@dataclass(frozen=True)
class ModelLimits:
    """The bounds of what a model can read; None: no bound."""

    vocabulary: int | None = None
    """Number of token ids."""
    positions: int | None = None
    """Most tokens of prompt and completion together."""

    def unknown(self, ids: Ints) -> Ints:
        """Return the ids that lie outside the vocabulary."""
        return ids[(ids < 0) | (ids >= self.vocabulary)] if self.vocabulary is not None else ids[ids < 0]

    def has_room(self, tokens: int) -> bool:
        """Return whether a sequence of so many tokens fits."""
        return self.positions is None or tokens <= self.positions


class RequestCheck:
    """The violations of one request, collected.

    check = RequestCheck("Generation", model="policy")
    check.require(sampling.max_new_tokens >= 1, "sampling.max_new_tokens", "must be 1 or more")
    check.raise_if_wrong()
    """

    def __init__(self, service: str, *, model: str) -> None:
        """Keep the words of the message: the name of the service, and what it calls the model."""
        self._service = service
        self._model = model
        self._violations: list[FieldViolation] = []

    def require(self, holds: bool, field: str, text: str) -> None:
        """Note that `field` is wrong unless the condition holds."""
        if not holds:
            self._violations.append(FieldViolation(field, text))

    def require_basics(self, job: str, dtype: str, prompts: Sequence[Ints]) -> None:
        """Require a job, a compute dtype and at least one prompt, none of them empty."""
        self.require(bool(job), "job", "must name the job")
        self.require(dtype in DTYPES, "dtype", f"must be one of {', '.join(DTYPES)}, not {dtype!r}")
        self.require(bool(prompts), "prompt_ids", "must hold at least one prompt")
        self.require(all(len(prompt) > 0 for prompt in prompts), "prompt_ids", "every prompt needs at least one token")

    def require_temperature(self, temperature: float, field: str) -> None:
        """Require a finite number above 0."""
        holds = math.isfinite(temperature) and temperature > 0
        self.require(holds, field, f"must be a number above 0, not {temperature}")

    def require_known(self, ids: Ints, limits: ModelLimits, field: str, where: str) -> None:
        """Require ids of the vocabulary; `where` names the row in the message."""
        for unknown in limits.unknown(ids)[:1]:
            known = "no negative ids" if limits.vocabulary is None else f"ids 0 to {limits.vocabulary - 1}"
            self.require(False, field, f"{where} holds id {unknown}, but the {self._model} knows {known}")

    def raise_if_wrong(self) -> None:
        """Raise InvalidInput with everything that was noted, if anything was."""
        if self._violations:
            shown = "; ".join(f"{each.field}: {each.description}" for each in self._violations[:MAX_SHOWN])
            raise InvalidInput(f"{self._service} request refused. {shown}", self._violations)
