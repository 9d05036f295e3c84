"""A trial of a reward on four rows of every prompt set that it will see, before anything is queued.

The completions are made up: the first tokens of another prompt. What fails here would fail in the job, hours later.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from quatrain.data.tables import PromptTable
from quatrain.errors import TRANSIENT_ERRORS, FieldViolation, InvalidSpec, QuatrainError
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.peers.service_clients import SampleScore, ScoreCall, ScoreSample, ServiceClients
from quatrain.orchestrator.submission.models import PinnedModel

TRIAL_ROWS = 4
TRIAL_TOKENS = 16
NONE_ROWS = 64
"""Rows that are tried when four have no score: a function may be about some rows only."""
HUGE = 1e4
"""An absolute score from which on a value model has no chance without `scale` or `clip`."""


@dataclass(frozen=True)
class PromptSet:
    """A prompt set of the spec: the field that names it, and its rows."""

    field: str
    table: PromptTable

    @property
    def is_training(self) -> bool:
        """Return whether the policy is trained on it, so that every row should have a score."""
        return self.field == "ppo.prompts"


@dataclass(frozen=True)
class RewardTrial:
    """What tries one reward section of the spec, which `field` names."""

    field: str
    reward: RewardSection
    policy: PinnedModel
    services: ServiceClients
    timeout: float

    async def run(self, sets: Sequence[PromptSet]) -> list[str]:
        """Try the reward on every set and return warnings for people.

        Raises InvalidSpec naming field, function, set and rows when the reward is wrong, and what the services raise
        when they cannot answer now.
        """
        found: list[SampleScore] = []
        contents: set[tuple[str, str]] = set()
        warnings: list[str] = []
        for prompts in sets:
            scores = await self._score(prompts, TRIAL_ROWS)
            if all(score.outcome == "skipped" for score in scores):
                warnings += await self._without_score(prompts)
            found += scores
            rows = trial_rows(len(prompts.table.prompt_ids), TRIAL_ROWS)
            contents |= {(each.prompt_json, str(each.completion_ids)) for each in trial_samples(prompts.table, rows)}
        said = remarks(found, several=len(contents) > 1)
        return [*warnings, *(f"{self.field}: {text}" for text in said)]

    async def _score(self, prompts: PromptSet, most: int) -> Sequence[SampleScore]:
        rows = trial_rows(len(prompts.table.prompt_ids), most)
        call = ScoreCall(
            job="trial",
            samples=trial_samples(prompts.table, rows),
            reward_json=self.reward.to_text(),
            tokenizer=self.policy.ref,
            trainer_state_json=json.dumps({"job": "trial", "step": 0, "total_steps": 0}),
        )
        where = f"in the trial on {_named(rows)} of {prompts.field}"
        try:
            scores = (await self.services.score(call, self.timeout)).samples
        except TRANSIENT_ERRORS:
            raise  # This says nothing about the spec.
        except QuatrainError as error:
            raise self._refusal(f"{error.message} ({where})", error.code_reason, error.message) from error
        refused = [score.reason for score in scores if score.outcome not in ("rollout", "skipped")]
        if refused:
            text = f"{where} there was no usable score: {refused[0] or 'the reward service said no outcome'}"
            raise self._refusal(text, "REWARD_FUNCTION_FAILED")
        return scores

    async def _without_score(self, prompts: PromptSet) -> list[str]:
        """Return warnings about a set whose four rows have no score. Raises InvalidSpec for one to be trained on."""
        more = await self._score(prompts, NONE_ROWS)
        count = sum(score.outcome == "skipped" for score in more)
        if count < len(more):
            return [f"{self.field}: None for {count} of the {len(more)} rows that were tried of {prompts.field}"]
        text = (
            f"None for all {count} rows that were tried of {prompts.field}: such samples have no score, and nothing is "
            "trained on them; return a number for the rows that the function is about"
        )
        if prompts.is_training:
            raise self._refusal(text, "REWARD_FUNCTION_FAILED")
        return [f"{self.field}: {text}"]

    def _refusal(self, text: str, reason: str, about: str = "") -> InvalidSpec:
        """Return the error for the section, or for the function that the message `about` names."""
        names = (f"reward function {function.path!r} " for function in self.reward.functions)
        place = next((index for index, name in enumerate(names) if name in about), None)
        field = self.field if place is None else f"{self.field}.functions.{place}"
        return InvalidSpec(f"{field}: {text}", [FieldViolation(field, text)], reason=reason)


def trial_rows(rows: int, most: int) -> list[int]:
    """Return the rows that are tried: at most so many, spread over the whole set."""
    count = min(rows, most)
    return [index * rows // count for index in range(count)]


def trial_samples(table: PromptTable, rows: Sequence[int]) -> list[ScoreSample]:
    """Return samples of these rows, each with the beginning of the next row's prompt as its completion."""
    following = [*rows[1:], rows[0]]
    return [
        ScoreSample(
            prompt_ids=table.prompt_ids[row],
            completion_ids=table.prompt_ids[other][:TRIAL_TOKENS],
            prompt_json=table.prompt_json[row],
            finish_reason="length",
            extra_json=table.extra_json[row],
        )
        for row, other in zip(rows, following, strict=True)
    ]


def remarks(scores: Sequence[SampleScore], *, several: bool) -> Iterator[str]:
    """Yield what people should know about the scores. `several`: not all samples were the same."""
    values = [score.score for score in scores if score.score is not None]
    if not values:
        return
    largest = max(values, key=abs)
    if abs(largest) >= HUGE:
        yield (
            f"scores of the trial reach {largest:g}; a value model learns numbers near 1 well and such ones badly: "
            "set `scale` (a small factor) or `clip`"
        )
    if several and len(values) > 1 and len(set(values)) == 1:
        yield (
            f"all {len(values)} rows of the trial got {values[0]:g}; that may be right for made-up completions, but a "
            "reward that never varies trains nothing: try it on real answers with `quatrain reward test`"
        )


def _named(rows: Sequence[int]) -> str:
    """Return the rows for people, from 1."""
    numbers = [str(row + 1) for row in rows]
    if len(numbers) > TRIAL_ROWS:
        return f"{len(numbers)} rows"
    return f"row {numbers[0]}" if len(numbers) == 1 else f"rows {', '.join(numbers[:-1])} and {numbers[-1]}"
