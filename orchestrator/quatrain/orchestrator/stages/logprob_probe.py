"""Probes whether sampler, reference and learner compute the same logprobs: before the first step, and at stale ones."""

import asyncio
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from quatrain.digests import sample_seed
from quatrain.joblog.compact import MetricRow
from quatrain.joblog.payloads import Metrics
from quatrain.orchestrator.job.run import JobFailed, JobRun
from quatrain.orchestrator.peers.learner_session import LearnerSession
from quatrain.orchestrator.peers.service_clients import GenerateCall, Generated, Ints, ReferenceCall
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.sampling import sampling_params
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger

log = get_logger("logprob_probe")

T = TypeVar("T")

PROBE_PROMPTS = 4
MISMATCH = "LOGPROB_MISMATCH"
DRIFTED = "sampler_mismatch"
"""Name of the condition that says that sampler and learner drift apart."""
DRIFT_STEPS = 3
PROBE_TIMEOUT_SECONDS = 300.0
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 1.0)}
"""Mean and maximum difference that is still the same distribution, by dtype."""


@dataclass(frozen=True)
class Probe:
    """A few completions of one policy version, made by generation itself: no task, no seal."""

    policy: ModelRef
    prompts: Sequence[Ints]
    generated: Generated

    @property
    def logprobs(self) -> np.ndarray:
        """Return the sampler's logprobs, all tokens one after the other."""
        return np.concatenate(self.generated.logprobs)


async def probe_logprobs(run: JobRun, session: LearnerSession) -> None:
    """Sample a few completions and score them with reference and learner. Raises JobFailed naming both values.

    A reference that the spec names is another model: all that can be checked is that it gives logprobs at all.
    """
    probe = await _sample(run, run.plan.first_version)
    _check_sampled(run.plan, probe)
    _compare(run.plan.dtype, "learner", probe.logprobs, await _learner(run, session, probe))
    logprobs = await _reference(run, probe)
    if run.plan.pinned.reference is None:
        _compare(run.plan.dtype, "reference", probe.logprobs, logprobs)
    else:
        _check_logprobs(probe.logprobs, logprobs)


async def sampler_mismatch(
    run: JobRun, session: LearnerSession, version: int, rollouts: Awaitable[T]
) -> tuple[T, Metrics]:
    """Return what `rollouts` gives, and sampler/mismatch_* of a probe by the version that the learner holds.

    Rollouts of a stale version cannot be compared with the learner. The probe is sampled while `rollouts` are awaited,
    so it costs a step next to nothing.
    """
    awaited, probe = await asyncio.gather(rollouts, _sample(run, version))
    difference = np.abs(probe.logprobs.astype(np.float64) - await _learner(run, session, probe))
    metrics: Metrics = {
        "sampler/mismatch_mean": float(difference.mean()),
        "sampler/mismatch_max": float(difference.max()),
    }
    return awaited, metrics


def drift(rows: Sequence[MetricRow], dtype: str, current: str | None) -> str | None:
    """Return the condition's text after the newest of the PPO steps' metrics, None for no condition.

    `current` is its text so far. It is set from the third step in a row beyond the probe's tolerance to the first one
    within it.
    """
    most, _ = TOLERANCES[dtype]
    means = [row.values.get("sampler/mismatch_mean") for row in rows[-DRIFT_STEPS:]]
    newest = [mean for mean in means if mean is not None]
    if newest and newest[-1] <= most:
        return None
    if current is not None or len(newest) < DRIFT_STEPS or not all(mean > most for mean in newest):
        return current
    return (
        f"sampler and learner disagree on the logprobs of the same tokens for {DRIFT_STEPS} steps: mean difference "
        f"{newest[-1]:.2e} (at most {most:.0e} in {dtype}), step {rows[-1].step}; look at sampler/mismatch_* and "
        "sampler/ess, whether generation runs the version, dtype and code that the learner does, and for bfloat16 "
        "whether the weights have grown large"
    )


async def _sample(run: JobRun, version: int) -> Probe:
    plan = run.plan
    table = await run.prompts(plan.pinned.prompts)
    prompts = table.prompt_ids[:PROBE_PROMPTS]
    policy = run.view.policies[version]
    call = GenerateCall(
        job=plan.job,
        policy=policy.at_version(version),
        prompts=prompts,
        seeds=[sample_seed(plan.seed, "probe", version, index, 0) for index in range(len(prompts))],
        sampling=sampling_params(plan),
        dtype=plan.dtype,
    )
    services = run.context.services
    return Probe(
        policy, prompts, await run.retry_while_unavailable(lambda: services.generate(call, PROBE_TIMEOUT_SECONDS))
    )


async def _learner(run: JobRun, session: LearnerSession, probe: Probe) -> np.ndarray:
    """Return the logprobs of the probe under the policy in training."""
    temperature, completions = run.plan.spec.ppo.generation.temperature, probe.generated.completions
    return np.concatenate(
        await run.retry_while_unavailable(lambda: session.logprobs(probe.prompts, completions, temperature))
    )


async def _reference(run: JobRun, probe: Probe) -> np.ndarray:
    """Return the logprobs of the probe under the reference: the probed version itself where the spec names none."""
    model = probe.policy if run.plan.pinned.reference is None else run.plan.pinned.reference
    call = ReferenceCall(
        job=run.plan.job,
        model=model,
        prompts=probe.prompts,
        completions=probe.generated.completions,
        temperature=run.plan.spec.ppo.generation.temperature,
        dtype=run.plan.dtype,
    )
    services = run.context.services
    answer = await run.retry_while_unavailable(lambda: services.reference_logprobs(call, PROBE_TIMEOUT_SECONDS))
    return np.concatenate(answer.rows)


def _check_sampled(plan: Plan, probe: Probe) -> None:
    """Raise JobFailed unless the samples fit the settings: known ids, at most the longest length, ends at the end."""
    sampling = sampling_params(plan)
    ends, most, vocabulary = set(sampling.eos_token_ids), sampling.max_new_tokens, plan.pinned.vocab_size
    problems = []
    for ids, finish in zip(probe.generated.completions, probe.generated.finish_reasons, strict=True):
        stops = finish == "stop"
        if len(ids) > most or (len(ids) < most and not stops):
            problems.append(f"{len(ids)} tokens where ppo.generation.max_new_tokens is {most}")
        if len(ids) and not 0 <= int(ids.min()) <= int(ids.max()) < vocabulary:
            problems.append(f"ids {int(ids.min())} to {int(ids.max())} where the vocabulary has {vocabulary}")
        if ends.intersection(ids[:-1].tolist()) or (stops and (not len(ids) or int(ids[-1]) not in ends)):
            problems.append(f"a completion {ids[-3:].tolist()} that ends elsewhere than at the end ids {sorted(ends)}")
    if problems:
        raise JobFailed(
            f"generation does not follow the sampling settings: it gave {problems[0]}; look at its engine",
            reason="SAMPLING_MISMATCH",
        )


def _check_logprobs(sampled: np.ndarray, other: np.ndarray) -> None:
    """Raise JobFailed unless the reference gives one logprob for each token, finite and at most 0."""
    _check_count("reference", sampled, other)
    if not np.isfinite(other).all() or other.max() > 1e-3:
        worst = other[~(other <= 1e-3) | ~np.isfinite(other)][0]
        raise JobFailed(
            f"the reference gives {worst} as the logprob of a token, where it is finite and at most 0: look at the "
            "weights of reference.model",
            reason=MISMATCH,
        )


def _check_count(service: str, sampled: np.ndarray, other: np.ndarray) -> None:
    if len(sampled) != len(other) or len(sampled) == 0:
        raise JobFailed(
            f"generation gave {len(sampled)} logprobs, {service} {len(other)} for the same tokens", reason=MISMATCH
        )


def _compare(dtype: str, service: str, sampled: np.ndarray, other: np.ndarray) -> None:
    _check_count(service, sampled, other)
    difference = np.abs(sampled.astype(np.float64) - other.astype(np.float64))
    mean, largest = float(difference.mean()), float(difference.max())
    log.info("logprob probe", service=service, mean=mean, largest=largest)
    most_mean, most = TOLERANCES[dtype]
    if not (mean <= most_mean and largest <= most):  # True also when one is NaN.
        worst = int(np.argmax(difference))  # The first NaN where there is one.
        raise JobFailed(
            f"generation and {service} disagree on the logprobs of the same tokens: mean difference {mean:.2e} "
            f"(at most {most_mean:.0e} in {dtype}), largest {largest:.2e} (at most {most:.0e}), for example "
            f"{sampled[worst]:.5f} against {other[worst]:.5f}; both must run the same model, dtype and temperature",
            reason=MISMATCH,
        )
