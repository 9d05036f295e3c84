"""The probe before the first PPO step: do sampler, reference and learner mean the same by a logprob?"""

import numpy as np

from quatrain.digests import sample_seed
from quatrain.orchestrator.learners import LearnerSession
from quatrain.orchestrator.plan import FolderRef
from quatrain.orchestrator.run import JobFailed, JobRun
from quatrain.rpc.tensors import from_ragged_floats, to_ragged_ints
from quatrain.telemetry.logging import get_logger
from quatrain.v1 import common_pb2, generation_pb2, learner_pb2, reference_pb2

log = get_logger("preflight")

PROBE_PROMPTS = 4
PROBE_TIMEOUT_SECONDS = 300.0
TOLERANCES = {"float32": (1e-4, 1e-3), "bfloat16": (5e-2, 1.0)}
"""Mean and maximum difference that is still the same distribution, by dtype."""


async def probe_logprobs(run: JobRun, session: LearnerSession) -> None:
    """Samples a few completions and scores them with reference and learner. Raises JobFailed naming both values."""
    plan = run.plan
    table = await run.prompts(plan.prompts)
    prompt_ids = to_ragged_ints(table.prompt_ids[:PROBE_PROMPTS])
    count = min(PROBE_PROMPTS, plan.prompts.rows)
    policy = FolderRef.from_json(run.view.policies[0])
    generated = await run.around.services.generate(
        generation_pb2.GenerateRequest(
            job=plan.job,
            policy=policy.to_proto(0),
            prompt_ids=prompt_ids,
            seeds=[sample_seed(plan.seed, "probe", 0, index, 0) for index in range(count)],
            sampling=plan.sampling(),
            dtype=plan.dtype,
        ),
        PROBE_TIMEOUT_SECONDS,
    )
    sampled = np.concatenate(from_ragged_floats(generated.logprobs))
    learner = await session.logprobs(
        learner_pb2.ComputePolicyLogprobsRequest(
            token=session.token,
            prompt_ids=prompt_ids,
            completion_ids=generated.completion_ids,
            temperature=plan.sampling().temperature,
        )
    )
    _compare(plan.dtype, "learner", sampled, np.concatenate(from_ragged_floats(learner.logprobs)))
    if plan.reference is None:
        reference = await _reference(run, policy, prompt_ids, generated)
        _compare(plan.dtype, "reference", sampled, reference)


async def _reference(
    run: JobRun,
    policy: FolderRef,
    prompt_ids: common_pb2.RaggedInts,
    generated: generation_pb2.GenerateResponse,
) -> np.ndarray:
    """Logprobs of the reference, which is the same model as version 0 unless the spec names another."""
    response = await run.around.services.reference_logprobs(
        reference_pb2.ComputeReferenceLogprobsRequest(
            job=run.plan.job,
            model=policy.to_proto(),
            prompt_ids=prompt_ids,
            completion_ids=generated.completion_ids,
            temperature=run.plan.sampling().temperature,
            dtype=run.plan.dtype,
        ),
        PROBE_TIMEOUT_SECONDS,
    )
    return np.concatenate(from_ragged_floats(response.logprobs))


def _compare(dtype: str, service: str, sampled: np.ndarray, other: np.ndarray) -> None:
    difference = np.abs(sampled.astype(np.float64) - other.astype(np.float64))
    mean, largest = float(difference.mean()), float(difference.max())
    log.info("logprob probe", service=service, mean=mean, largest=largest)
    most_mean, most = TOLERANCES[dtype]
    if mean > most_mean or largest > most or not np.isfinite(largest):
        worst = int(np.nanargmax(difference))
        raise JobFailed(
            f"generation and {service} disagree on the logprobs of the same tokens: mean difference {mean:.2e} "
            f"(at most {most_mean:.0e} in {dtype}), largest {largest:.2e} (at most {most:.0e}), for example "
            f"{sampled[worst]:.5f} against {other[worst]:.5f}; both must run the same model, dtype and temperature",
            reason="LOGPROB_MISMATCH",
        )
