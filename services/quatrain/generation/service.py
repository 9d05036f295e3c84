"""Generation without gRPC: checks a request, has its policy pulled and loaded, and has the chunk computed.

Fetching runs in worker threads, so that one job's download does not hold up another job's chunk; loading and computing
run in the model thread, one chunk at a time and alone.
"""

import asyncio
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import FieldViolation, InvalidInput
from quatrain.generation.engines.base import Chunk, Completion, Engine, LoadedPolicy
from quatrain.generation.slots import PolicySlots
from quatrain.models.references import WeightsKey
from quatrain.refs import ModelRef
from quatrain.rpc.worker import ModelThread

DTYPES = ("float32", "bfloat16")


@dataclass(frozen=True)
class Request:
    """One chunk for one policy; `dtype` is float32 or bfloat16."""

    job: str
    policy: ModelRef
    chunk: Chunk
    dtype: str


@dataclass(frozen=True)
class Result:
    """Completions in the order of the prompts, and the seconds that the model computed."""

    completions: list[Completion]
    compute_seconds: float


@dataclass(frozen=True)
class Capabilities:
    """What this replica can do."""

    engine: str
    exact_logprobs: bool
    device: str
    job_slots: int


class GenerationService:
    """One replica: an engine, its policy slots and its model thread."""

    def __init__(
        self,
        engine: Engine,
        fetch: Callable[[str, str], Path],
        *,
        job_slots: int,
        queue_size: int,
        stuck_after: float = math.inf,
    ) -> None:
        """`fetch` gives a verified local folder for a model's URI and digest (`FolderCache.fetch`)."""
        self._engine = engine
        self._fetch = fetch
        self._slots = PolicySlots(engine, fetch, job_slots)
        self._thread = ModelThread(queue_size, stuck_after=stuck_after)
        self._job_slots = job_slots

    def capabilities(self) -> Capabilities:
        """What this replica can do."""
        return Capabilities(self._engine.name, self._engine.exact_logprobs, self._engine.device, self._job_slots)

    async def generate(self, request: Request) -> Result:
        """Samples one completion for each prompt.

        Raises InvalidInput (the request), NotFound, Corrupt, Unavailable (its policy), InvalidData (a policy that
        cannot be loaded), Overloaded (queue full), RunFailed (logits that are not finite).
        """
        check_request(request)
        ref = request.policy
        held = self._slots.holds(request.job, WeightsKey.of(ref, request.dtype))
        if self._engine.needs_weights and not held:
            await asyncio.to_thread(self._fetch, ref.uri, ref.digest)
        return await self._thread.run(self._compute, request)

    async def watch(self) -> None:
        """Raises Unavailable as soon as the model thread is stuck, else never ends."""
        await self._thread.watch()

    def close(self) -> None:
        """Takes no more requests."""
        self._thread.close()

    def _compute(self, request: Request) -> Result:
        policy = self._slots.policy(request.job, request.policy, request.dtype)
        check_against_policy(request.chunk, policy)
        started = time.monotonic()
        completions = policy.generate(request.chunk)
        return Result(completions, time.monotonic() - started)


def check_request(request: Request) -> None:
    """Raises InvalidInput that names every field that is wrong whatever the policy."""
    chunk, sampling = request.chunk, request.chunk.sampling
    wrong: list[FieldViolation] = []

    def require(holds: bool, field: str, text: str) -> None:
        if not holds:
            wrong.append(FieldViolation(field, text))

    require(bool(request.job), "job", "must name the job")
    require(bool(request.policy.uri), "policy.uri", "must name the policy")
    require(bool(chunk.prompts), "prompt_ids", "must hold at least one prompt")
    require(all(len(prompt) > 0 for prompt in chunk.prompts), "prompt_ids", "every prompt needs at least one token")
    require(
        len(chunk.seeds) == len(chunk.prompts),
        "seeds",
        f"{len(chunk.seeds)} seeds for {len(chunk.prompts)} prompts; give one for each",
    )
    require(sampling.max_new_tokens >= 1, "sampling.max_new_tokens", "must be 1 or more")
    require(
        math.isfinite(sampling.temperature) and sampling.temperature > 0,
        "sampling.temperature",
        f"must be a number above 0, not {sampling.temperature}",
    )
    require(
        sampling.ignore_eos or bool(sampling.eos_token_ids),
        "sampling.eos_token_ids",
        "must name an end-of-sequence id unless ignore_eos is set",
    )
    require(request.dtype in DTYPES, "dtype", f"must be one of {', '.join(DTYPES)}, not {request.dtype!r}")
    _refuse(wrong)


def check_against_policy(chunk: Chunk, policy: LoadedPolicy) -> None:
    """Raises InvalidInput for token ids outside the policy's vocabulary and prompts that leave no room to answer."""
    wrong: list[FieldViolation] = []
    vocabulary, positions = policy.vocabulary, policy.max_positions
    for row, prompt in enumerate(chunk.prompts):
        if prompt.min() < 0 or (vocabulary is not None and prompt.max() >= vocabulary):
            bad = int(prompt.min() if prompt.min() < 0 else prompt.max())
            wrong.append(
                FieldViolation("prompt_ids", f"row {row} holds id {bad}, outside the policy's 0 .. {vocabulary} - 1")
            )
        length = len(prompt) + chunk.sampling.max_new_tokens
        if positions is not None and length > positions:
            wrong.append(
                FieldViolation(
                    "prompt_ids",
                    f"row {row}: {len(prompt)} prompt tokens and {chunk.sampling.max_new_tokens} new ones exceed the "
                    f"policy's {positions} positions",
                )
            )
    for token in () if chunk.sampling.ignore_eos else chunk.sampling.eos_token_ids:
        if token < 0 or (vocabulary is not None and token >= vocabulary):
            wrong.append(
                FieldViolation("sampling.eos_token_ids", f"id {token} is outside the policy's 0 .. {vocabulary} - 1")
            )
    _refuse(wrong)


def _refuse(violations: list[FieldViolation]) -> None:
    if violations:
        shown = "; ".join(f"{violation.field}: {violation.description}" for violation in violations[:5])
        raise InvalidInput(f"Generation request refused. {shown}", violations)
