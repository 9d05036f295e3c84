"""Reference logprobs without gRPC: checks a request whatever its model, and has the backend compute it."""

import numpy as np

from quatrain.errors import RunFailed
from quatrain.models.request_checks import RequestCheck
from quatrain.reference.backends.base import Backend, Request, Result


class ReferenceService:
    """One replica: the requests that a backend gets."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def compute(self, request: Request) -> Result:
        """Return the logprob of every completion token.

        Raises InvalidInput, RunFailed (logits that are not finite), and what `Backend.compute` raises.
        """
        check_request(request)
        result = await self._backend.compute(request)
        if not all(np.isfinite(row).all() for row in result.logprobs):
            raise RunFailed("The reference model gives logits that are not finite; its weights hold NaN or infinity.")
        return result


def check_request(request: Request) -> None:
    """Raise InvalidInput that names every field that is wrong whatever the model."""
    rows = request.unchecked
    check = RequestCheck("Reference", model="model")
    check.require_basics(request.job, request.dtype, rows.prompts)
    check.require(bool(request.model.uri), "model.uri", "must name the reference model")
    check.require(
        len(rows.completions) == len(rows.prompts),
        "completion_ids",
        f"{len(rows.completions)} completions for {len(rows.prompts)} prompts; give one for each",
    )
    check.require_temperature(request.temperature, "temperature")
    check.raise_if_wrong()
