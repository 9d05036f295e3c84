"""One task: generate a chunk, then score it and compute its reference logprobs at the same time."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from typing import Any, TypeVar

import numpy as np

from quatrain.data.tables import PromptTable
from quatrain.errors import InvalidInput, RunFailed
from quatrain.orchestrator.peers.service_clients import Services
from quatrain.rpc.tensors import from_ragged_floats, from_ragged_ints, to_ragged_ints
from quatrain.v1 import generation_pb2, reference_pb2, reward_pb2, rollout_pb2

A = TypeVar("A")
B = TypeVar("B")
Outcome = reward_pb2.SampleScore.Outcome
STATUS_OF_OUTCOME = {
    Outcome.OUTCOME_SCORED: "rollout",
    Outcome.OUTCOME_SKIPPED: "skipped",
    Outcome.OUTCOME_REFUSED: "refused",
}


async def run_task(
    task: rollout_pb2.RolloutTask, prompts: PromptTable, services: Services, made_by: str, deadline: float
) -> list[rollout_pb2.RolloutResult]:
    """Makes every sample of the task by `deadline` (monotonic). RunFailed for an answer that does not fit."""
    _check_rows(task, prompts)
    generated = await services.generate(_generate_request(task, prompts), deadline - time.monotonic())
    completions = from_ragged_ints(generated.completion_ids)
    logprobs = from_ragged_floats(generated.logprobs)
    for answer in (completions, logprobs, generated.finish_reasons):
        _check_count(len(task.rows), len(answer), "generation")
    (scores, score_seconds), (ref_rows, reference_seconds) = await _both(
        _score_all(task, prompts, completions, generated, services, deadline),
        _reference(task, prompts, generated, services, deadline),
    )
    results = []
    for index, row in enumerate(task.rows):
        result = rollout_pb2.RolloutResult(
            job=task.job,
            purpose=task.purpose,
            step=task.step,
            chunk=task.chunk,
            row=row,
            policy=generated.policy,
            completion_ids=completions[index].astype("<i4").tobytes(),
            logprobs=logprobs[index].astype("<f4").tobytes(),
            ref_logprobs=ref_rows[index].astype("<f4").tobytes() if ref_rows else b"",
            finish_reason=generated.finish_reasons[index],
            generate_seconds=generated.compute_seconds,
            score_seconds=score_seconds,
            reference_seconds=reference_seconds,
            made_by=made_by,
        )
        for name, response in scores:
            result.scores.append(_outcome(name, response.scores[index]))
            if name == "score":
                result.reward_metrics.extend(response.metrics)
        results.append(result)
    return results


async def _both(first: Coroutine[Any, Any, A], second: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Both results. An error of one ends the other, so that a task that is tried again does not leave calls behind."""
    one, other = asyncio.ensure_future(first), asyncio.ensure_future(second)
    try:
        return await asyncio.gather(one, other)
    finally:
        for each in (one, other):
            each.cancel()
        await asyncio.gather(one, other, return_exceptions=True)


def _check_rows(task: rollout_pb2.RolloutTask, prompts: PromptTable) -> None:
    count = len(prompts.prompt_ids)
    for row in task.rows:
        if not 0 <= row.prompt_index < count:
            raise InvalidInput(f"the task asks for prompt {row.prompt_index} of a table of {count}")


def _check_count(asked: int, given: int, service: str) -> None:
    if asked != given:
        raise RunFailed(f"{service} answered {given} samples of the {asked} that it was asked for")


def _prompt_rows(task: rollout_pb2.RolloutTask, prompts: PromptTable) -> list[np.ndarray]:
    return [prompts.prompt_ids[row.prompt_index] for row in task.rows]


def _generate_request(task: rollout_pb2.RolloutTask, prompts: PromptTable) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        job=task.job,
        policy=task.policy,
        prompt_ids=to_ragged_ints(_prompt_rows(task, prompts)),
        seeds=[row.seed for row in task.rows],
        sampling=task.sampling,
        dtype=task.dtype,
    )


async def _score_all(
    task: rollout_pb2.RolloutTask,
    prompts: PromptTable,
    completions: Sequence[np.ndarray],
    generated: generation_pb2.GenerateResponse,
    services: Services,
    deadline: float,
) -> tuple[list[tuple[str, reward_pb2.ScoreResponse]], float]:
    samples = [
        reward_pb2.ScoreSample(
            prompt_ids=prompts.prompt_ids[row.prompt_index].tolist(),
            completion_ids=completions[index].tolist(),
            prompt_json=prompts.prompt_json[row.prompt_index],
            finish_reason=generated.finish_reasons[index],
            extra_json=prompts.extra_json[row.prompt_index],
        )
        for index, row in enumerate(task.rows)
    ]
    scored = []
    for scoring in task.scorings:
        request = reward_pb2.ScoreRequest(
            job=task.job,
            samples=samples,
            reward_json=scoring.reward_json,
            missing_eos_penalty=scoring.missing_eos_penalty,
            trainer_state_json=task.trainer_state_json,
            tokenizer=task.tokenizer,
        )
        response = await services.score(request, deadline - time.monotonic())
        _check_count(len(samples), len(response.scores), "the reward service")
        scored.append((scoring.name, response))
    return scored, sum(response.compute_seconds for _, response in scored)


async def _reference(
    task: rollout_pb2.RolloutTask,
    prompts: PromptTable,
    generated: generation_pb2.GenerateResponse,
    services: Services,
    deadline: float,
) -> tuple[list[np.ndarray], float]:
    if not task.HasField("reference"):
        return [], 0.0
    request = reference_pb2.ComputeReferenceLogprobsRequest(
        job=task.job,
        model=task.reference,
        prompt_ids=to_ragged_ints(_prompt_rows(task, prompts)),
        completion_ids=generated.completion_ids,
        temperature=task.sampling.temperature,
        dtype=task.dtype,
    )
    response = await services.reference_logprobs(request, deadline - time.monotonic())
    logprobs = from_ragged_floats(response.logprobs)
    _check_count(len(task.rows), len(logprobs), "the reference service")
    return logprobs, response.compute_seconds


def _outcome(name: str, score: reward_pb2.SampleScore) -> rollout_pb2.ScoreOutcome:
    outcome = rollout_pb2.ScoreOutcome(
        name=name,
        status=STATUS_OF_OUTCOME.get(score.outcome, ""),
        reason=score.reason,
        terms=score.terms,
        logged_json=score.logged_json,
    )
    if score.outcome == Outcome.OUTCOME_SCORED:
        outcome.score = score.score
    return outcome
