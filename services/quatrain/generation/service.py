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

import numpy as np

from quatrain.generation.engines.base import Chunk, Completion, Engine
from quatrain.generation.slots import PolicySlots
from quatrain.models.references import WeightsKey
from quatrain.models.request_checks import ModelLimits, RequestCheck
from quatrain.refs import ModelRef
from quatrain.rpc.worker import ModelThread


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
        check_against_policy(request.chunk, policy.limits)
        started = time.monotonic()
        completions = policy.generate(request.chunk)
        return Result(completions, time.monotonic() - started)


def check_request(request: Request) -> None:
    """Raise InvalidInput that names every field that is wrong whatever the policy."""
    chunk, sampling = request.chunk, request.chunk.sampling
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


def check_against_policy(chunk: Chunk, limits: ModelLimits) -> None:
    """Raise InvalidInput for token ids outside the policy's vocabulary and prompts that leave no room to answer."""
    check = RequestCheck("Generation", model="policy")
    new_tokens = chunk.sampling.max_new_tokens
    for row, prompt in enumerate(chunk.prompts):
        check.require_known(prompt, limits, "prompt_ids", f"row {row}")
        check.require(
            limits.has_room(len(prompt) + new_tokens),
            "prompt_ids",
            f"row {row}: {len(prompt)} prompt tokens and {new_tokens} new ones exceed the policy's {limits.positions} "
            "positions",
        )
    if not chunk.sampling.ignore_eos:
        ends = np.array(chunk.sampling.eos_token_ids, np.int32)
        check.require_known(ends, limits, "sampling.eos_token_ids", "it")
    check.raise_if_wrong()
