"""Another reward service that speaks `RewardService`: its score is one raw value among others here."""

import json
import math
from typing import Any

import grpc

from quatrain.digests import parse_json
from quatrain.errors import InvalidInput
from quatrain.jobspec.reward_section import ServiceSource
from quatrain.json_values import JsonObject
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.samples import Batch, Sample
from quatrain.rpc.certificates import ChannelTls
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.v1 import common_pb2, reward_pb2, reward_pb2_grpc

Outcome = reward_pb2.SampleScore.Outcome
FINISH_REASONS = {
    "stop": common_pb2.FinishReason.FINISH_REASON_STOP,
    "length": common_pb2.FinishReason.FINISH_REASON_LENGTH,
}


class RemoteBackend:
    """A backend with one channel per address. With `tls` the other service must belong to this deployment."""

    def __init__(self, tls: ChannelTls | None = None) -> None:
        self._tls = tls
        self._channels: dict[str, grpc.aio.Channel] = {}

    async def score(self, source: ServiceSource, batch: Batch) -> SourceScores:
        """Score the batch with one call, whose deadline is the batch's time limit.

        Raises the error that the other service reports, Unavailable, DeadlineExpired, and InvalidInput for an answer
        that does not fit.
        """
        channel = self._channels.get(source.target)
        if channel is None:
            channel = open_channel(source.target, service="quatrain.v1.RewardService", tls=self._tls)
            self._channels[source.target] = channel
        try:
            stub = reward_pb2_grpc.RewardServiceStub(channel)
            response = await stub.Score(_request(batch), timeout=batch.timeout)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="remote reward service", target=source.target) from error
        if response is None:  # So gRPC tells of bytes that are no such message.
            raise InvalidInput(
                f"remote reward service at {source.target} answered with something else than a ScoreResponse; it must "
                "speak quatrain.v1.RewardService"
            )
        return _read(source, response, len(batch.samples))

    async def close(self) -> None:
        """Close all channels."""
        for channel in self._channels.values():
            await channel.close(None)
        self._channels.clear()


def _request(batch: Batch) -> reward_pb2.ScoreRequest:
    return reward_pb2.ScoreRequest(
        job=batch.job,
        samples=[_sample(sample) for sample in batch.samples],
        trainer_state_json=json.dumps(dict(batch.trainer_state)),
        tokenizer=common_pb2.ModelRef(uri=batch.tokenizer_ref.uri, digest=batch.tokenizer_ref.digest),
    )


def _sample(sample: Sample) -> reward_pb2.ScoreSample:
    return reward_pb2.ScoreSample(
        prompt_ids=sample.prompt_ids,
        completion_ids=sample.completion_ids,
        prompt_json=json.dumps(sample.prompt),
        finish_reason=FINISH_REASONS[sample.finish_reason],
        extra_json=json.dumps(sample.extra),
        completion=sample.completion,
    )


def _read(source: ServiceSource, response: reward_pb2.ScoreResponse, samples: int) -> SourceScores:
    if len(response.scores) != samples:
        raise InvalidInput(
            f"remote reward service at {source.target} returned {len(response.scores)} scores for {samples} samples"
        )
    refused = {
        index: score.reason or "refused by the remote reward service"
        for index, score in enumerate(response.scores)
        if score.outcome not in (Outcome.OUTCOME_SCORED, Outcome.OUTCOME_SKIPPED)
    }
    values = tuple(score.score if score.outcome == Outcome.OUTCOME_SCORED else None for score in response.scores)
    return SourceScores(
        values=values,
        terms=_terms(response) or {source.name: values},
        version=f"{source.target}@{response.reward_version}",
        refused=refused,
        logged=_logged(response),
        metrics={metric.name: (metric.value,) for metric in response.metrics if metric.HasField("value")},
    )


def _terms(response: reward_pb2.ScoreResponse) -> dict[str, tuple[float | None, ...]]:
    rows = [
        {term.name: term.value for term in score.terms if term.HasField("value") and math.isfinite(term.value)}
        for score in response.scores
    ]
    names = dict.fromkeys(term.name for score in response.scores for term in score.terms)
    return {name: tuple(row.get(name) for row in rows) for name in names}


def _logged(response: reward_pb2.ScoreResponse) -> dict[str, tuple[Any, ...]]:
    rows = [_logged_row(score.logged_json) for score in response.scores]
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: tuple(row.get(name) for row in rows) for name in names}


def _logged_row(text: str) -> JsonObject:
    try:
        row = parse_json(text) if text else {}
    except ValueError as error:
        raise InvalidInput(f"the remote reward service sent a logged_json that is not JSON: {error}") from error
    return row if isinstance(row, dict) else {}
