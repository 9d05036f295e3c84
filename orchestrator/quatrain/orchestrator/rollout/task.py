"""One task: generate a chunk, then score it and compute its reference logprobs at the same time."""

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from quatrain.concurrency import both_or_cancel
from quatrain.data.tables import PromptTable
from quatrain.errors import InvalidInput
from quatrain.orchestrator.peers.service_clients import (
    GenerateCall,
    Generated,
    ReferenceCall,
    ReferenceLogprobs,
    ScoreCall,
    Scores,
    ScoreSample,
    ServiceClients,
)
from quatrain.orchestrator.rollout.samples import (
    ChunkWork,
    Floats,
    Made,
    Place,
    Rollout,
    RolloutTask,
    ScoreOutcome,
)

_NO_LOGPROBS: Floats = np.zeros(0, dtype=np.float32)


async def run_task(
    task: RolloutTask, prompts: PromptTable, services: ServiceClients, made_by: str, deadline: float
) -> list[Made]:
    """Make every sample of the task by `deadline` (monotonic). Raises what the services do."""
    _check_prompts(task, prompts)
    generated = await services.generate(_generate_call(task, prompts), deadline - time.monotonic())
    scores, reference = await both_or_cancel(
        _score_all(task, prompts, generated, services, deadline),
        _reference(task, prompts, generated, services, deadline),
    )
    return await asyncio.to_thread(_results, task, generated, scores, reference, made_by)


def _results(
    task: RolloutTask,
    generated: Generated,
    scores: Sequence[Scores],
    reference: ReferenceLogprobs | None,
    made_by: str,
) -> list[Made]:
    named = dict(zip((scoring.name for scoring in task.scorings), scores, strict=True))
    work = ChunkWork(
        generate_seconds=generated.compute_seconds,
        score_seconds=sum(each.compute_seconds for each in scores),
        reference_seconds=0.0 if reference is None else reference.compute_seconds,
        reward_metrics=named["score"].metrics if "score" in named else (),
        made_by=made_by,
    )
    place = Place(task.job, task.purpose, task.step, task.chunk, generated.policy)
    return [Made(place, _rollout(task, index, generated, named, reference), work) for index in range(len(task.samples))]


def _rollout(
    task: RolloutTask, index: int, generated: Generated, scores: dict[str, Scores], reference: ReferenceLogprobs | None
) -> Rollout:
    return Rollout(
        sample=task.samples[index],
        policy=generated.policy,
        completion_ids=generated.completions[index],
        logprobs=generated.logprobs[index],
        ref_logprobs=_NO_LOGPROBS if reference is None else reference.rows[index],
        finish_reason=generated.finish_reasons[index],
        scores=tuple(_outcome(name, of_call, index) for name, of_call in scores.items()),
    )


def _outcome(name: str, scores: Scores, index: int) -> ScoreOutcome:
    said = scores.samples[index]
    return ScoreOutcome(name, said.outcome, said.reason, said.score, said.terms, said.logged_json)


def _check_prompts(task: RolloutTask, prompts: PromptTable) -> None:
    count = len(prompts.prompt_ids)
    for sample in task.samples:
        if not 0 <= sample.prompt_index < count:
            raise InvalidInput(f"the task asks for prompt {sample.prompt_index} of a table of {count}")


def _generate_call(task: RolloutTask, prompts: PromptTable) -> GenerateCall:
    return GenerateCall(
        job=task.job,
        policy=task.policy,
        prompts=[prompts.prompt_ids[sample.prompt_index] for sample in task.samples],
        seeds=[sample.seed for sample in task.samples],
        sampling=task.sampling,
        dtype=task.dtype,
    )


async def _score_all(
    task: RolloutTask, prompts: PromptTable, generated: Generated, services: ServiceClients, deadline: float
) -> Sequence[Scores]:
    """Return one answer for each scoring of the task."""
    samples = await asyncio.to_thread(_score_samples, task, prompts, generated)
    scores = []
    for scoring in task.scorings:
        call = ScoreCall(
            job=task.job,
            samples=samples,
            reward_json=scoring.reward_json,
            missing_eos_penalty=scoring.missing_eos_penalty,
            trainer_state_json=task.trainer_state_json,
            tokenizer=task.tokenizer,
        )
        scores.append(await services.score(call, deadline - time.monotonic()))
    return scores


def _score_samples(task: RolloutTask, prompts: PromptTable, generated: Generated) -> list[ScoreSample]:
    return [
        ScoreSample(
            prompt_ids=prompts.prompt_ids[sample.prompt_index],
            completion_ids=generated.completions[index],
            prompt_json=prompts.prompt_json[sample.prompt_index],
            finish_reason=generated.finish_reasons[index],
            extra_json=prompts.extra_json[sample.prompt_index],
        )
        for index, sample in enumerate(task.samples)
    ]


async def _reference(
    task: RolloutTask, prompts: PromptTable, generated: Generated, services: ServiceClients, deadline: float
) -> ReferenceLogprobs | None:
    """Return the reference's logprobs, None when the task names no reference."""
    if task.reference is None:
        return None
    call = ReferenceCall(
        job=task.job,
        model=task.reference,
        prompts=[prompts.prompt_ids[sample.prompt_index] for sample in task.samples],
        completions=generated.completions,
        temperature=task.sampling.temperature,
        dtype=task.dtype,
    )
    return await services.reference_logprobs(call, deadline - time.monotonic())
