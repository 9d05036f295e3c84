"""The client's test of a reward: what it says about rows of a spec's prompts, without a job."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quatrain.client.connection import CHECK_SECONDS, Connection
from quatrain.client.resources import Metrics, NamedModel, metrics_from
from quatrain.client.submission import read_draft, send_files
from quatrain.client.uploads import upload_file, upload_model
from quatrain.jobspec import spec_to_proto
from quatrain.json_values import JsonObject, JsonValue
from quatrain.v1 import job_pb2


@dataclass(frozen=True)
class ScoredRow:
    """What the reward says about one row.

    `outcome` is scored, skipped, refused or failed; `source` says where the completion is from: given, data or made up.
    """

    row: int
    prompt: JsonValue
    completion: str
    source: str
    outcome: str
    score: float | None
    terms: Metrics
    reason: str
    logged: JsonObject
    seconds: float


@dataclass(frozen=True)
class RewardTest:
    """What the reward says. `together` is why the call with all rows at once failed; empty when it did not."""

    rows: tuple[ScoredRow, ...]
    prompts: str
    together: str
    together_seconds: float
    metrics: Metrics
    warnings: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Return whether every row has a score, or is one that the functions leave out."""
        return not self.together and all(row.outcome in ("scored", "skipped") for row in self.rows)


class RewardTests:
    """Base of `AsyncClient`, which makes the connection."""

    _connection: Connection

    async def test_reward(
        self,
        spec: Path | str | Mapping[str, object],
        *,
        overrides: Sequence[str] = (),
        rows: int = 8,
        completions: Sequence[str] = (),
        gold: bool = False,
    ) -> RewardTest:
        """Score rows of a spec's prompts with its reward, or with `gold` those of the evaluation, and make no job.

        Files that the spec names are uploaded first. Without `completions` those of the data are scored, else made-up
        ones. Raises InvalidSpec or InvalidData with the wrong fields; a row that fails is in the result.
        """
        draft = await asyncio.to_thread(read_draft, spec, overrides)

        async def send_model(folder: Path) -> NamedModel:
            return await upload_model(self._connection, folder, "")

        ready = await send_files(draft, lambda path: upload_file(self._connection, path), send_model)
        request = job_pb2.TestRewardRequest(spec=spec_to_proto(ready), rows=rows, completions=completions, gold=gold)
        answer = await self._connection.call(self._connection.jobs.TestReward, request, timeout=CHECK_SECONDS)
        return RewardTest(
            rows=tuple(_row(each) for each in answer.rows),
            prompts=answer.prompts,
            together=answer.together,
            together_seconds=answer.together_seconds,
            metrics=metrics_from(answer.metrics),
            warnings=tuple(answer.warnings),
        )


def _row(message: job_pb2.TestedRow) -> ScoredRow:
    return ScoredRow(
        row=message.row,
        prompt=json.loads(message.prompt_json),
        completion=message.completion,
        source=message.source,
        outcome=message.outcome,
        score=message.score if message.HasField("score") else None,
        terms=metrics_from(message.terms),
        reason=message.reason,
        logged=json.loads(message.logged_json) if message.logged_json else {},
        seconds=message.seconds,
    )
