"""TestReward: what the reward of a spec says about rows of its prompts, without a job."""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from quatrain.data.tables import PromptTable
from quatrain.errors import TRANSIENT_ERRORS, FieldViolation, InvalidInput, InvalidSpec, QuatrainError
from quatrain.jobspec import JobSpec
from quatrain.jobspec.reward_section import RewardSection
from quatrain.orchestrator.peers.service_clients import SampleScore, ScoreCall, ScoreSample, ServiceClients
from quatrain.orchestrator.submission.models import PinnedModel
from quatrain.orchestrator.submission.reward_trial import remarks, trial_rows, trial_samples
from quatrain.text import Tokenizer

MAX_ROWS = 64
USUAL_ROWS = 8
ANSWER_COLUMNS = ("completion", "chosen", "response")
"""Columns of a prompt set that hold an answer to the prompt; `answer` is more often what it is compared with."""
SLOW_CALLS = 2
"""After so many rows that took all of reward.timeout the others are not tried."""
Source = Literal["given", "data", "made up"]


@dataclass(frozen=True)
class Rehearsal:
    """What is asked for: so many rows, with these completions, of the reward or of the gold reward."""

    spec: JobSpec
    rows: int = USUAL_ROWS
    completions: tuple[str, ...] = ()
    gold: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= MAX_ROWS:
            raise InvalidInput(f"rows {self.rows}: 1 to {MAX_ROWS} rows can be tested at once")
        if len(self.completions) > MAX_ROWS:
            raise InvalidInput(f"{len(self.completions)} completions: at most {MAX_ROWS} can be tested at once")
        field, section = ("ppo.eval_gold", self.spec.ppo.eval_gold) if self.gold else ("reward", self.spec.reward)
        if section is None:
            raise _wrong(field, "the spec has no gold reward; leave --gold out, or give ppo.eval_gold")
        if section.data is not None:
            text = "a reward model is trained from it in the job, so there is none to test yet; test one that exists "
            raise _wrong(f"{field}.data", f"{text}with --set 'reward={{model: models://NAME}}'")

    @property
    def field(self) -> str:
        """Return the field of the reward that is tested."""
        return "ppo.eval_gold" if self.gold else "reward"

    @property
    def prompts(self) -> str:
        """Return the field of the prompts that it sees."""
        return "ppo.eval_prompts" if self.gold else "ppo.prompts"


@dataclass(frozen=True)
class ScoredRow:
    """What the reward says about one row. `score` is None where it has none; `reason` says why it failed.

    `completion` is the text that is scored, which is that of its tokens; `asked` is the text that was to be scored.
    """

    row: int
    sample: ScoreSample
    completion: str
    source: Source
    outcome: Literal["scored", "skipped", "refused", "failed"] = "failed"
    score: float | None = None
    terms: tuple[tuple[str, float | None], ...] = ()
    reason: str = ""
    logged_json: str = ""
    seconds: float = 0.0
    asked: str | None = None


@dataclass(frozen=True)
class RewardReport:
    """All rows, and the call with all of them together, as a job makes it: `together` says why it failed."""

    rows: tuple[ScoredRow, ...]
    together: str
    together_seconds: float
    metrics: tuple[tuple[str, float | None], ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Rehearser:
    """What scores the rows: alone, so that each has its own time and fault, and together."""

    reward: RewardSection
    field: str
    policy: PinnedModel
    services: ServiceClients
    timeout: float

    async def run(self, rows: Sequence[ScoredRow]) -> RewardReport:
        """Score the rows. Raises what the services raise when they cannot answer now."""
        together, metrics = "", tuple[tuple[str, float | None], ...]()
        started = time.monotonic()
        try:
            metrics = (await self.services.score(self._call(rows), self.timeout)).metrics
        except TRANSIENT_ERRORS:
            raise
        except QuatrainError as error:
            together = error.message
        seconds = time.monotonic() - started
        tested: list[ScoredRow] = []
        for row in rows:
            slow = sum(each.outcome == "failed" and each.seconds >= self.reward.timeout for each in tested)
            if slow >= SLOW_CALLS:
                tested.append(replace(row, reason=f"not tried: {slow} rows took all of reward.timeout"))
            else:
                tested.append(await self._alone(row))
        scores = [SampleScore("rollout", each.score, (), "", "") for each in tested if each.score is not None]
        several = len({(each.sample.prompt_json, each.completion) for each in tested}) > 1
        warnings = tuple(f"{self.field}: {text}" for text in remarks(scores, several=several))
        return RewardReport(tuple(tested), together, seconds, metrics, (*_retold(tested), *warnings))

    async def _alone(self, row: ScoredRow) -> ScoredRow:
        started = time.monotonic()
        try:
            (score,) = (await self.services.score(self._call([row]), self.timeout)).samples
        except TRANSIENT_ERRORS:
            raise
        except QuatrainError as error:
            return replace(row, reason=error.message, seconds=time.monotonic() - started)
        outcome: Literal["scored", "skipped", "refused"] = "scored" if score.outcome == "rollout" else "refused"
        return replace(
            row,
            outcome="skipped" if score.outcome == "skipped" else outcome,
            score=score.score,
            terms=score.terms,
            reason=score.reason,
            logged_json=score.logged_json,
            seconds=time.monotonic() - started,
        )

    def _call(self, rows: Sequence[ScoredRow]) -> ScoreCall:
        return ScoreCall(
            job="reward-test",
            samples=[row.sample for row in rows],
            reward_json=self.reward.to_text(),
            tokenizer=self.policy.ref,
            trainer_state_json=json.dumps({"job": "reward-test", "step": 0, "total_steps": 0}),
        )


def rows_of(rehearsal: Rehearsal, table: PromptTable, tokenizer: Tokenizer) -> list[ScoredRow]:
    """Return the rows to score with their completions. Raises InvalidInput for a completion that has no tokens."""
    wanted = len(rehearsal.completions) or rehearsal.rows
    if wanted > len(table.prompt_ids):
        if rehearsal.completions:
            there = f"{len(table.prompt_ids)} rows of {rehearsal.prompts}"
            raise InvalidInput(f"{wanted} completions for the {there}; give fewer")
        wanted = len(table.prompt_ids)
    chosen = list(range(wanted)) if rehearsal.completions else trial_rows(len(table.prompt_ids), wanted)
    made_up = trial_samples(table, chosen)
    rows = []
    for index, (row, sample) in enumerate(zip(chosen, made_up, strict=True)):
        source: Source = "given" if rehearsal.completions else "data"
        given = rehearsal.completions[index] if rehearsal.completions else None
        text = _own_answer(sample.extra_json) if given is None else given
        if text is None:
            rows.append(ScoredRow(row + 1, sample, tokenizer.decode(list(sample.completion_ids)), "made up"))
            continue
        ids = [*tokenizer.encode(text), tokenizer.eos_token_id]
        finished = replace(sample, completion_ids=np.asarray(ids, dtype=np.int32), finish_reason="stop")
        rows.append(ScoredRow(row + 1, finished, tokenizer.decode(ids), source, asked=text))
    return rows


def _retold(rows: Sequence[ScoredRow]) -> Iterator[str]:
    """Yield a warning when the policy's tokens do not give a completion back as it was."""
    changed = [row for row in rows if row.asked is not None and row.asked != row.completion]
    if changed:
        first = changed[0]
        yield (
            f"{len(changed)} of {len(rows)} completions read differently as tokens of the policy; "
            f"row {first.row} is {first.completion[:60]!r} in place of {(first.asked or '')[:60]!r}"
        )


def _own_answer(extra_json: str) -> str | None:
    extra = json.loads(extra_json) if extra_json else {}
    answers = (extra.get(name) for name in ANSWER_COLUMNS)
    return next((answer for answer in answers if isinstance(answer, str) and answer), None)


def _wrong(field: str, text: str) -> InvalidSpec:
    return InvalidSpec(f"{field}: {text}", [FieldViolation(field, text)])
