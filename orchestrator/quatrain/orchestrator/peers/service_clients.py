"""Calls to the generation, reward and reference services, as values: the only place that knows their messages.

A chunk may have millions of tokens, so values become messages, and messages values, in threads.
"""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from quatrain.errors import RunFailed
from quatrain.refs import ModelRef
from quatrain.rpc.client.targets import TargetPool
from quatrain.rpc.tensors import from_ragged_floats, from_ragged_ints, to_ragged_ints
from quatrain.v1 import (
    common_pb2,
    generation_pb2,
    generation_pb2_grpc,
    reference_pb2,
    reference_pb2_grpc,
    reward_pb2,
    reward_pb2_grpc,
)

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]
FinishReason = Literal["stop", "length", ""]
"""Why a completion ended; empty when the service did not say."""
Outcome = Literal["rollout", "skipped", "refused", ""]
"""What became of a sample: it can be trained on, no reward function had a score for it, it is unsound; empty: the
service did not say."""

FINISH_REASON_NUMBERS: dict[str, common_pb2.FinishReason] = {
    "stop": common_pb2.FINISH_REASON_STOP,
    "length": common_pb2.FINISH_REASON_LENGTH,
}
FINISH_REASONS: dict[int, FinishReason] = {
    common_pb2.FINISH_REASON_STOP: "stop",
    common_pb2.FINISH_REASON_LENGTH: "length",
}
_OUTCOMES: dict[int, Outcome] = {
    reward_pb2.SampleScore.OUTCOME_SCORED: "rollout",
    reward_pb2.SampleScore.OUTCOME_SKIPPED: "skipped",
    reward_pb2.SampleScore.OUTCOME_REFUSED: "refused",
}


@dataclass(frozen=True)
class Sampling:
    """How completions are sampled."""

    max_new_tokens: int
    temperature: float
    ignore_eos: bool
    eos_token_ids: tuple[int, ...]

    def to_proto(self) -> generation_pb2.SamplingParams:
        """Return the message."""
        return generation_pb2.SamplingParams(
            max_new_tokens=self.max_new_tokens,
            temperature=self.temperature,
            ignore_eos=self.ignore_eos,
            eos_token_ids=self.eos_token_ids,
        )

    @staticmethod
    def from_proto(message: generation_pb2.SamplingParams) -> "Sampling":
        """Reverse `to_proto`."""
        return Sampling(message.max_new_tokens, message.temperature, message.ignore_eos, tuple(message.eos_token_ids))


@dataclass(frozen=True)
class Capabilities:
    """What the generation replicas can do."""

    exact_logprobs: bool
    device: str
    job_slots: int


@dataclass(frozen=True)
class GenerateCall:
    """A chunk of prompts for one policy, a seed for each."""

    job: str
    policy: ModelRef
    prompts: Sequence[Ints]
    seeds: Sequence[int]
    sampling: Sampling
    dtype: str


@dataclass(frozen=True)
class Generated:
    """Completions in the order of the prompts, with a logprob for each token, and the policy that made them."""

    completions: Sequence[Ints]
    logprobs: Sequence[Floats]
    finish_reasons: Sequence[FinishReason]
    policy: ModelRef
    compute_seconds: float


@dataclass(frozen=True)
class ScoreSample:
    """A sample as the reward service takes it: the prompt as JSON text, and the other columns of its row."""

    prompt_ids: Ints
    completion_ids: Sequence[int] | Ints
    prompt_json: str
    finish_reason: Literal["stop", "length", ""]
    extra_json: str


@dataclass(frozen=True)
class ScoreCall:
    """Samples to score under one reward section."""

    job: str
    samples: Sequence[ScoreSample]
    reward_json: str
    tokenizer: ModelRef
    missing_eos_penalty: float = 0.0
    trainer_state_json: str = "{}"


@dataclass(frozen=True)
class SampleScore:
    """The reward service's answer about one sample; `score` is None when it has none."""

    outcome: Outcome
    score: float | None
    terms: tuple[tuple[str, float | None], ...]
    reason: str
    logged_json: str


@dataclass(frozen=True)
class Scores:
    """The scores of a call, one for each sample in order; what reward functions logged for it; seconds."""

    samples: Sequence[SampleScore]
    metrics: tuple[tuple[str, float | None], ...]
    compute_seconds: float


@dataclass(frozen=True)
class ReferenceCall:
    """Completions whose logprobs under a frozen model are wanted."""

    job: str
    model: ModelRef
    prompts: Sequence[Ints]
    completions: Sequence[Ints]
    temperature: float
    dtype: str


@dataclass(frozen=True)
class ReferenceLogprobs:
    """The logprobs of the completion tokens, row by row, and seconds."""

    rows: Sequence[Floats]
    compute_seconds: float


@dataclass(frozen=True)
class ServiceClients:
    """One pool of replicas for each of the three stateless services. Every call takes its time-out in seconds.

    Calls raise what the service reports, RunFailed for an answer with another number of samples than was asked for, and
    Unavailable, Overloaded, DeadlineExpired when no replica can answer now.
    """

    generation: TargetPool
    reward: TargetPool
    reference: TargetPool

    async def generate(self, call: GenerateCall, timeout: float) -> Generated:
        """Return a sampled chunk."""
        request = await asyncio.to_thread(_generate_request, call)
        response = await self.generation.call(
            lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).Generate, request, timeout=timeout
        )
        generated = await asyncio.to_thread(_generated, response)
        for answer in (generated.completions, generated.logprobs, generated.finish_reasons):
            _check_count(len(call.prompts), len(answer), "generation")
        return generated

    async def capabilities(self, timeout: float) -> Capabilities:
        """Return what the generation replicas can do."""
        response = await self.generation.call(
            lambda channel: generation_pb2_grpc.GenerationServiceStub(channel).GetGenerationCapabilities,
            generation_pb2.GetGenerationCapabilitiesRequest(),
            timeout=timeout,
        )
        return Capabilities(response.exact_logprobs, response.device, response.job_slots)

    async def score(self, call: ScoreCall, timeout: float) -> Scores:
        """Return the scores of a chunk."""
        request = await asyncio.to_thread(_score_request, call)
        response = await self.reward.call(
            lambda channel: reward_pb2_grpc.RewardServiceStub(channel).Score, request, timeout=timeout
        )
        _check_count(len(call.samples), len(response.scores), "the reward service")
        return await asyncio.to_thread(_scores, response)

    async def reference_logprobs(self, call: ReferenceCall, timeout: float) -> ReferenceLogprobs:
        """Return logprobs under the reference model."""
        request = await asyncio.to_thread(_reference_request, call)
        response = await self.reference.call(
            lambda channel: reference_pb2_grpc.ReferenceServiceStub(channel).ComputeReferenceLogprobs,
            request,
            timeout=timeout,
        )
        rows = await asyncio.to_thread(from_ragged_floats, response.logprobs, "logprobs")
        _check_count(len(call.prompts), len(rows), "the reference service")
        return ReferenceLogprobs(rows, response.compute_seconds)

    def stop_waiting(self) -> None:
        """Let a call fail from now on if no replica takes it at once."""
        for pool in (self.generation, self.reward, self.reference):
            pool.wait_no_more()

    async def close(self) -> None:
        """Close all channels."""
        for pool in (self.generation, self.reward, self.reference):
            await pool.close()


def from_named_values(values: Iterable[common_pb2.NamedValue]) -> tuple[tuple[str, float | None], ...]:
    """Return names with their numbers; None for a value without one."""
    return tuple((each.name, each.value if each.HasField("value") else None) for each in values)


def to_named_values(values: Iterable[tuple[str, float | None]]) -> list[common_pb2.NamedValue]:
    """Reverse `from_named_values`."""
    return [common_pb2.NamedValue(name=name, value=value) for name, value in values]


def _generate_request(call: GenerateCall) -> generation_pb2.GenerateRequest:
    return generation_pb2.GenerateRequest(
        job=call.job,
        policy=call.policy.to_proto(),
        prompt_ids=to_ragged_ints(call.prompts),
        seeds=call.seeds,
        sampling=call.sampling.to_proto(),
        dtype=call.dtype,
    )


def _generated(response: generation_pb2.GenerateResponse) -> Generated:
    return Generated(
        completions=from_ragged_ints(response.completion_ids, "completion_ids"),
        logprobs=from_ragged_floats(response.logprobs, "logprobs"),
        finish_reasons=[FINISH_REASONS.get(reason, "") for reason in response.finish_reasons],
        policy=ModelRef.from_proto(response.policy),
        compute_seconds=response.compute_seconds,
    )


def _reference_request(call: ReferenceCall) -> reference_pb2.ComputeReferenceLogprobsRequest:
    return reference_pb2.ComputeReferenceLogprobsRequest(
        job=call.job,
        model=call.model.to_proto(),
        prompt_ids=to_ragged_ints(call.prompts),
        completion_ids=to_ragged_ints(call.completions),
        temperature=call.temperature,
        dtype=call.dtype,
    )


def _score_request(call: ScoreCall) -> reward_pb2.ScoreRequest:
    return reward_pb2.ScoreRequest(
        job=call.job,
        samples=[_score_sample(sample) for sample in call.samples],
        reward_json=call.reward_json,
        missing_eos_penalty=call.missing_eos_penalty,
        trainer_state_json=call.trainer_state_json,
        tokenizer=call.tokenizer.to_proto(),
    )


def _scores(response: reward_pb2.ScoreResponse) -> Scores:
    return Scores(
        samples=[_sample_score(score) for score in response.scores],
        metrics=from_named_values(response.metrics),
        compute_seconds=response.compute_seconds,
    )


def _score_sample(sample: ScoreSample) -> reward_pb2.ScoreSample:
    message = reward_pb2.ScoreSample(
        prompt_ids=sample.prompt_ids.tolist(),
        completion_ids=np.asarray(sample.completion_ids).tolist(),
        prompt_json=sample.prompt_json,
        extra_json=sample.extra_json,
    )
    if sample.finish_reason:
        message.finish_reason = FINISH_REASON_NUMBERS[sample.finish_reason]
    return message


def _sample_score(score: reward_pb2.SampleScore) -> SampleScore:
    outcome = _OUTCOMES.get(score.outcome, "")
    return SampleScore(
        outcome=outcome,
        score=score.score if outcome == "rollout" else None,
        terms=from_named_values(score.terms),
        reason=score.reason,
        logged_json=score.logged_json,
    )


def _check_count(asked: int, given: int, service: str) -> None:
    if asked != given:
        raise RunFailed(f"{service} answered {given} samples of the {asked} that it was asked for")
