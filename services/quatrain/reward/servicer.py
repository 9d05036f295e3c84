"""Translates between protobuf and the service's dataclasses, and nothing else."""

import asyncio
import math

import grpc
from typing_extensions import override

from quatrain.faults import fault_point
from quatrain.refs import ModelRef
from quatrain.reward.samples import FinishReason, RawSample
from quatrain.reward.service import RewardService, ScoreCall, Scored, ScoreResult
from quatrain.v1 import common_pb2, reward_pb2, reward_pb2_grpc

FINISH_REASONS: dict[int, FinishReason] = {
    common_pb2.FinishReason.FINISH_REASON_STOP: "stop",
    common_pb2.FinishReason.FINISH_REASON_LENGTH: "length",
}
OUTCOMES = {
    "scored": reward_pb2.SampleScore.Outcome.OUTCOME_SCORED,
    "skipped": reward_pb2.SampleScore.Outcome.OUTCOME_SKIPPED,
    "refused": reward_pb2.SampleScore.Outcome.OUTCOME_REFUSED,
}


class RewardServicer(reward_pb2_grpc.RewardServiceServicer):
    """`RewardService` on the wire; the interceptors turn errors into statuses."""

    def __init__(self, service: RewardService) -> None:
        self._service = service

    @override
    async def Score(
        self,
        request: reward_pb2.ScoreRequest,
        context: "grpc.aio.ServicerContext[reward_pb2.ScoreRequest, reward_pb2.ScoreResponse]",
    ) -> reward_pb2.ScoreResponse:
        fault_point("reward.before")
        # In threads: a chunk may have thousands of samples.
        result = await self._service.score(await asyncio.to_thread(_call, request))
        fault_point("reward.after")
        return await asyncio.to_thread(_response, result)


def _call(request: reward_pb2.ScoreRequest) -> ScoreCall:
    return ScoreCall(
        job=request.job,
        samples=tuple(_raw_sample(sample) for sample in request.samples),
        reward_json=request.reward_json,
        tokenizer=ModelRef.from_proto(request.tokenizer),
        missing_eos_penalty=request.missing_eos_penalty,
        trainer_state_json=request.trainer_state_json,
    )


def _raw_sample(sample: reward_pb2.ScoreSample) -> RawSample:
    return RawSample(
        prompt_ids=tuple(sample.prompt_ids),
        completion_ids=tuple(sample.completion_ids),
        prompt_json=sample.prompt_json,
        finish_reason=FINISH_REASONS.get(sample.finish_reason),
        extra_json=sample.extra_json,
    )


def _response(result: ScoreResult) -> reward_pb2.ScoreResponse:
    return reward_pb2.ScoreResponse(
        scores=[_sample_score(scored) for scored in result.scores],
        metrics=[_named(name, value) for name, value in result.metrics],
        reward_version=result.reward_version,
        compute_seconds=result.compute_seconds,
    )


def _sample_score(scored: Scored) -> reward_pb2.SampleScore:
    return reward_pb2.SampleScore(
        outcome=OUTCOMES[scored.outcome],
        score=scored.score,
        terms=[_named(name, value) for name, value in scored.terms],
        reason=scored.reason,
        logged_json=scored.logged_json,
    )


def _named(name: str, value: float | None) -> common_pb2.NamedValue:
    return common_pb2.NamedValue(name=name, value=value if value is not None and math.isfinite(value) else None)
