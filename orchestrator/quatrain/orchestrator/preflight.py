"""Probes: do sampler, reference and learner mean the same by a logprob? Before the first step, and at stale ones."""

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quatrain.digests import sample_seed
from quatrain.orchestrator.learners import LearnerSession
from quatrain.orchestrator.plan import FolderRef
from quatrain.orchestrator.run import JobFailed, JobRun
from quatrain.rpc.tensors import from_ragged_floats, to_ragged_ints
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2, generation_pb2, learner_pb2, reference_pb2

log = get_logger("preflight")

T = TypeVar("T")

PROBE_PROMPTS = 4
MISMATCH = "LOGPROB_MISMATCH"
PROBE_TIMEOUT_SECONDS = 300.0
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 1.0)}
"""Mean and maximum difference that is still the same distribution, by dtype."""


@dataclass(frozen=True)
class Probe:
    """A few completions of one policy version, made by generation itself: no task, no seal."""

    policy: FolderRef
    prompt_ids: common_pb2.RaggedInts
    generated: generation_pb2.GenerateResponse

    @property
    def logprobs(self) -> np.ndarray:
        """What the sampler says, all tokens one after the other."""
        return np.concatenate(from_ragged_floats(self.generated.logprobs))


async def probe_logprobs(run: JobRun, session: LearnerSession) -> None:
    """Samples a few completions and scores them with reference and learner. Raises JobFailed naming both values."""
    probe = await _sample(run, run.plan.first_version)
    _compare(run.plan.dtype, "learner", probe.logprobs, await _learner(run, session, probe))
    if run.plan.reference is None:
        _compare(run.plan.dtype, "reference", probe.logprobs, await _reference(run, probe))


async def sampler_mismatch(
    run: JobRun, session: LearnerSession, version: int, rollouts: Awaitable[T]
) -> tuple[T, dict[str, float | None]]:
    """sampler/mismatch_* of a probe by the version that the learner holds: rollouts of a stale version cannot tell.

    The probe is sampled while `rollouts` are waited for, so it costs a step next to nothing.
    """
    awaited, probe = await asyncio.gather(rollouts, _sample(run, version))
    difference = np.abs(probe.logprobs.astype(np.float64) - await _learner(run, session, probe))
    metrics: dict[str, float | None] = {
        "sampler/mismatch_mean": float(difference.mean()),
        "sampler/mismatch_max": float(difference.max()),
    }
    return awaited, metrics


async def _sample(run: JobRun, version: int) -> Probe:
    plan = run.plan
    table = await run.prompts(plan.prompts)
    prompt_ids = to_ragged_ints(table.prompt_ids[:PROBE_PROMPTS])
    count = min(PROBE_PROMPTS, plan.prompts.rows)
    policy = FolderRef.from_json(run.view.policies[version])
    request = generation_pb2.GenerateRequest(
        job=plan.job,
        policy=policy.to_proto(version),
        prompt_ids=prompt_ids,
        seeds=[sample_seed(plan.seed, "probe", version, index, 0) for index in range(count)],
        sampling=plan.sampling(),
        dtype=plan.dtype,
    )
    services = run.around.services
    generated = await run.patiently(lambda: services.generate(request, PROBE_TIMEOUT_SECONDS))
    return Probe(policy, prompt_ids, generated)


async def _learner(run: JobRun, session: LearnerSession, probe: Probe) -> np.ndarray:
    """Logprobs of the probe under the policy in training."""
    request = learner_pb2.ComputePolicyLogprobsRequest(
        token=session.token,
        prompt_ids=probe.prompt_ids,
        completion_ids=probe.generated.completion_ids,
        temperature=run.plan.sampling().temperature,
    )
    response = await run.patiently(lambda: session.logprobs(request))
    return np.concatenate(from_ragged_floats(response.logprobs))


async def _reference(run: JobRun, probe: Probe) -> np.ndarray:
    """Logprobs of the version that was probed under the reference service."""
    request = reference_pb2.ComputeReferenceLogprobsRequest(
        job=run.plan.job,
        model=probe.policy.to_proto(),
        prompt_ids=probe.prompt_ids,
        completion_ids=probe.generated.completion_ids,
        temperature=run.plan.sampling().temperature,
        dtype=run.plan.dtype,
    )
    services = run.around.services
    response = await run.patiently(lambda: services.reference_logprobs(request, PROBE_TIMEOUT_SECONDS))
    return np.concatenate(from_ragged_floats(response.logprobs))


def _compare(dtype: str, service: str, sampled: np.ndarray, other: np.ndarray) -> None:
    if len(sampled) != len(other) or len(sampled) == 0:
        raise JobFailed(
            f"generation gave {len(sampled)} logprobs, {service} {len(other)} for the same tokens", reason=MISMATCH
        )
    difference = np.abs(sampled.astype(np.float64) - other.astype(np.float64))
    mean, largest = float(difference.mean()), float(difference.max())
    log.info("logprob probe", service=service, mean=mean, largest=largest)
    most_mean, most = TOLERANCES[dtype]
    if not (mean <= most_mean and largest <= most):  # also when one of them is NaN
        worst = int(np.argmax(difference))  # the first NaN where there is one
        raise JobFailed(
            f"generation and {service} disagree on the logprobs of the same tokens: mean difference {mean:.2e} "
            f"(at most {most_mean:.0e} in {dtype}), largest {largest:.2e} (at most {most:.0e}), for example "
            f"{sampled[worst]:.5f} against {other[worst]:.5f}; both must run the same model, dtype and temperature",
            reason=MISMATCH,
        )
