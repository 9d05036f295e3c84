"""Generation without gRPC: checks a request whatever its policy, and has the engine compute it."""

from quatrain.generation.engines.base import Capabilities, Engine, Request, Result
from quatrain.models.request_checks import RequestCheck


class GenerationService:
    """One replica: the requests that an engine gets."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def capabilities(self) -> Capabilities:
        """Return what this replica can do."""
        return self._engine.capabilities()

    async def generate(self, request: Request) -> Result:
        """Return one completion for each prompt. Raises InvalidInput, and what `Engine.generate` raises."""
        check_request(request)
        return await self._engine.generate(request)


def check_request(request: Request) -> None:
    """Raise InvalidInput that names every field that is wrong whatever the policy."""
    chunk, sampling = request.unchecked, request.unchecked.sampling
    check = RequestCheck("Generation", model="policy")
    check.require_basics(request.job, request.dtype, chunk.prompts)
    check.require(bool(request.policy.uri), "policy.uri", "must name the policy")
    check.require(
        len(chunk.seeds) == len(chunk.prompts),
        "seeds",
        f"{len(chunk.seeds)} seeds for {len(chunk.prompts)} prompts; give one for each",
    )
    check.require(sampling.max_new_tokens >= 1, "sampling.max_new_tokens", "must be 1 or more")
    check.require_temperature(sampling.temperature, "sampling.temperature")
    check.require(
        sampling.ignore_eos or bool(sampling.eos_token_ids),
        "sampling.eos_token_ids",
        "must name an end-of-sequence id unless ignore_eos is set",
    )
    check.raise_if_wrong()
