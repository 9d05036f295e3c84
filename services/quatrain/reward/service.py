"""The reward service without gRPC: refuses malformed samples, asks the sources, composes one score for each sample.

The order (weighted sum, offset, scale, clip, missing_eos_penalty) is algorithms.scores.compose_score's.
"""

import asyncio
import json
import math
import time
from collections import OrderedDict
from collections.abc import Container, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from quatrain.algorithms.scores import compose_score
from quatrain.concurrency import gather_or_cancel
from quatrain.digests import canonical_json, parse_json, sha256_hex
from quatrain.errors import InvalidInput
from quatrain.jobspec.reward_section import FunctionSource, ModelSource, RewardSection, ServiceSource, Source
from quatrain.json_values import JsonObject
from quatrain.refs import ModelRef
from quatrain.reward.backends.base import Backend, SourceScores
from quatrain.reward.samples import Batch, Malformed, PolicyTokenizer, RawSample, Sample, read_sample
from quatrain.storage.folders import FolderCache

TOKENIZERS_KEPT = 8


@dataclass(frozen=True)
class ScoreCall:
    """One call of the service. `missing_eos_penalty` is subtracted where the finish reason is `length`."""

    job: str
    samples: tuple[RawSample, ...]
    reward_json: str
    tokenizer: ModelRef
    missing_eos_penalty: float = 0.0
    trainer_state_json: str = ""


@dataclass(frozen=True)
class Scored:
    """The outcome of one sample. `score` is valid when it is scored, `reason` is given when it is refused."""

    outcome: Literal["scored", "skipped", "refused"]
    score: float = 0.0
    terms: tuple[tuple[str, float | None], ...] = ()
    reason: str = ""
    logged_json: str = ""


@dataclass(frozen=True)
class ScoreResult:
    """The outcome of each sample, in order, the means of logged metrics, the version of all sources, and the time."""

    scores: tuple[Scored, ...]
    metrics: tuple[tuple[str, float], ...]
    reward_version: str
    compute_seconds: float


@dataclass(frozen=True)
class Backends:
    """One backend for each kind of source."""

    models: Backend[ModelSource]
    functions: Backend[FunctionSource]
    services: Backend[ServiceSource]

    def ask(self, source: Source, batch: Batch) -> Coroutine[Any, Any, SourceScores]:
        """Return the call of the backend for this kind of source."""
        if isinstance(source, ModelSource):
            return self.models.score(source, batch)
        if isinstance(source, FunctionSource):
            return self.functions.score(source, batch)
        return self.services.score(source, batch)

    async def close(self) -> None:
        """Close all backends."""
        for backend in (self.models, self.functions, self.services):
            await backend.close()


@dataclass(frozen=True)
class _Answers:
    """The answers of all sources about the samples of a batch; a row is the index of a sample in the batch."""

    section: RewardSection
    penalty: float
    by_source: tuple[SourceScores, ...] = ()
    columns: Mapping[str, tuple[float | None, ...]] = field(default_factory=dict)


class RewardService:
    """What scores chunks. It keeps tokenizers; everything else is in the backends."""

    def __init__(self, folders: FolderCache, backends: Backends) -> None:
        self._folders = folders
        self._backends = backends
        self._tokenizers: OrderedDict[ModelRef, PolicyTokenizer] = OrderedDict()

    async def score(self, call: ScoreCall) -> ScoreResult:
        """Score every sample of a call.

        Raises InvalidInput (the call is wrong), RewardFunctionError, and what the backends raise.
        """
        started = time.monotonic()
        section = RewardSection.from_text(call.reward_json)
        penalty = call.missing_eos_penalty
        if not (penalty >= 0 and math.isfinite(penalty)):
            raise InvalidInput(f"missing_eos_penalty is {penalty}; it is 0 or more")
        trainer_state = _read_trainer_state(call.trainer_state_json)
        policy = await self._tokenizer(call.tokenizer)
        sound, refused = await asyncio.to_thread(_read_samples, call.samples, policy)
        batch = Batch(call.job, tuple(sound.values()), policy.tokenizer, call.tokenizer, trainer_state, section.timeout)
        by_source = await self._ask(section, batch) if sound else ()
        columns = unique_columns([answer.terms for answer in by_source])
        answers = _Answers(section, penalty, by_source, columns)
        return ScoreResult(
            scores=await asyncio.to_thread(_compose_all, answers, sound, refused),
            metrics=_mean_metrics(by_source),
            reward_version=sha256_hex(canonical_json([answer.version for answer in by_source])),
            compute_seconds=time.monotonic() - started,
        )

    async def close(self) -> None:
        """Close the backends."""
        await self._backends.close()

    async def _ask(self, section: RewardSection, batch: Batch) -> tuple[SourceScores, ...]:
        """Ask all sources at once. The first error cancels the other calls, whose results would not be used."""
        return tuple(await gather_or_cancel(self._backends.ask(source, batch) for source in section.sources))

    async def _tokenizer(self, ref: ModelRef) -> PolicyTokenizer:
        if not ref.uri:
            raise InvalidInput("the request names no tokenizer folder, without which ids cannot be checked or read")
        if ref not in self._tokenizers:
            self._tokenizers[ref] = await asyncio.to_thread(_load_tokenizer, self._folders, ref)
            while len(self._tokenizers) > TOKENIZERS_KEPT:
                self._tokenizers.popitem(last=False)
        self._tokenizers.move_to_end(ref)
        return self._tokenizers[ref]


def unique_columns(columns: Sequence[Mapping[str, tuple[Any, ...]]]) -> dict[str, tuple[Any, ...]]:
    """Return all columns, in order, under unique names: a second `length` becomes `length_2`."""
    unique: dict[str, tuple[Any, ...]] = {}
    for source in columns:
        for name, values in source.items():
            unique[_free_name(name, unique)] = values
    return unique


def _free_name(name: str, taken: Container[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    return free


def _read_samples(samples: Sequence[RawSample], policy: PolicyTokenizer) -> tuple[dict[int, Sample], dict[int, Scored]]:
    """Return the checked samples and the refused ones, by index."""
    sound: dict[int, Sample] = {}
    refused: dict[int, Scored] = {}
    for index, raw in enumerate(samples):
        try:
            sound[index] = read_sample(raw, policy)
        except Malformed as error:
            refused[index] = Scored("refused", reason=str(error))
    return sound, refused


def _compose_all(answers: _Answers, sound: Mapping[int, Sample], refused: Mapping[int, Scored]) -> tuple[Scored, ...]:
    """Return the outcomes of all samples in their order; `sound` and `refused` have them by index."""
    scores = dict(refused)
    for row, (index, sample) in enumerate(sound.items()):
        scores[index] = _compose(answers, row, sample)
    return tuple(scores[index] for index in range(len(scores)))


def _compose(answers: _Answers, row: int, sample: Sample) -> Scored:
    """Return the outcome of one sample."""
    finite, reasons = [], [answer.refused[row] for answer in answers.by_source if row in answer.refused]
    for name, values in answers.columns.items():
        value = values[row]
        if value is None or math.isfinite(value):
            finite.append((name, value))
        else:
            reasons.append(f"term {name!r} is {value}")
    terms, logged = tuple(finite), _logged_json(answers.by_source, row)
    if reasons:
        return Scored("refused", terms=terms, reason="; ".join(reasons), logged_json=logged)
    total, offset, applies = 0.0, answers.section.offset, False
    for source, answer in zip(answers.section.sources, answers.by_source, strict=True):
        if (value := answer.values[row]) is not None:
            total, offset, applies = total + source.weight * value, offset + source.weight * answer.offset, True
    if not applies:
        return Scored("skipped", terms=terms, logged_json=logged)
    if not math.isfinite(total):  # before the clip, which would hide it
        return Scored("refused", terms=terms, reason=f"the weighted sum is {total}", logged_json=logged)
    score = compose_score(
        total, offset, answers.section.scale, answers.section.clip, answers.penalty, sample.finish_reason == "length"
    )
    return Scored("scored", score=score, terms=terms, logged_json=logged)


def _logged_json(answers: Sequence[SourceScores], row: int) -> str:
    columns = unique_columns([answer.logged for answer in answers])
    logged = {name: values[row] for name, values in columns.items() if values[row] is not None}
    return json.dumps(logged, sort_keys=True) if logged else ""


def _mean_metrics(answers: Sequence[SourceScores]) -> tuple[tuple[str, float], ...]:
    """Return the mean of each metric over all sources, ordered by name."""
    gathered: dict[str, list[float]] = {}
    for answer in answers:
        for name, values in answer.metrics.items():
            gathered.setdefault(name, []).extend(values)
    return tuple((name, sum(values) / len(values)) for name, values in sorted(gathered.items()))


def _read_trainer_state(text: str) -> JsonObject:
    try:
        state = parse_json(text) if text else {}
    except ValueError as error:
        raise InvalidInput(f"trainer_state_json is not JSON: {error}") from error
    if not isinstance(state, dict):
        raise InvalidInput("trainer_state_json is not an object")
    return state


def _load_tokenizer(folders: FolderCache, ref: ModelRef) -> PolicyTokenizer:
    return PolicyTokenizer.load(folders.fetch(ref.uri, ref.digest))
