"""What is known about a data set: counts, drops, token lengths, duplicates, examples, overlap with held-out prompts."""

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from quatrain.data.observations import Observations, fingerprint
from quatrain.data.records import Drop, PairRecord, PromptRecord, Record, SftRecord
from quatrain.errors import InvalidData
from quatrain.text import Tokenizer

EXAMPLES = 3
_PERCENTILES = (50, 90, 95, 99)


@dataclass(frozen=True)
class Report:
    """Facts about a loaded file.

    format: name of the detected format; rows = kept + dropped; columns: of the file, after renaming.
    duplicates: records equal to an earlier one.
    lengths: part of the record (prompt, chosen, ...) to mean, p50, p90, p95, p99, max in tokens; None: no tokenizer.
    truncated_share: records longer than the limit, 0 to 1; None: no tokenizer or no limit.
    examples: the first three records as texts, rendered through the chat template when a tokenizer is given.
    overlap: prompts that are also in the held-out set, each row counted; None: not compared.
    """

    format: str
    rows: int
    kept: int
    dropped: tuple[Drop, ...]
    columns: tuple[str, ...]
    duplicates: int
    warnings: tuple[str, ...] = ()
    lengths: dict[str, dict[str, float]] | None = None
    truncated_share: float | None = None
    examples: tuple[dict[str, object], ...] = ()
    overlap: int | None = None
    dropped_count: int = 0
    """Rows that are not used; `dropped` names the first of them."""
    is_bare_text: bool = False
    """Whether all prompts are texts, none messages."""

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, as `data validate -o json` prints them."""
        return asdict(self)


class Description:
    """What is seen of a set's records as they pass by: examples, token lengths, and what a job would leave out.

    tokenizer: None leaves lengths out and renders no messages. max_length: longest record in tokens (prompts: longest
    prompt). held_out: prompts that must not be in the set.
    """

    def __init__(
        self,
        tokenizer: Tokenizer | None = None,
        *,
        max_length: int | None = None,
        held_out: Iterable[PromptRecord] | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._held_out = None if held_out is None else {fingerprint(record.prompt) for record in held_out}
        self._examples: list[dict[str, object]] = []
        self._lengths: dict[str, array[int]] = {}
        self._totals: array[int] = array("I")
        self._refused = Observations()
        self._overlap = 0

    def see(self, record: Record) -> None:
        """Take in a record."""
        if self._held_out is not None:
            self._overlap += fingerprint(record.prompt) in self._held_out
        try:
            parts = {} if self._tokenizer is None else token_parts(record, self._tokenizer)
            if len(self._examples) < EXAMPLES:
                self._examples.append(_example(record, self._tokenizer))
        except InvalidData as error:
            # The job leaves such rows out in the same way.
            self._refused.drop(Drop(record.line, error.message))
            return
        for name, ids in parts.items():
            self._lengths.setdefault(name, array("I")).append(len(ids))
        if parts:
            self._totals.append(_longest(parts))

    def add_to(self, report: Report) -> Report:
        """Return the report of the same pass with what was seen."""
        refused, totals = self._refused, np.frombuffer(self._totals, dtype=np.uintc) if self._totals else None
        share = None
        if self._max_length is not None and totals is not None:
            share = float((totals > self._max_length).mean())
        described = replace(
            report,
            kept=report.kept - refused.dropped,
            dropped=tuple(sorted((*report.dropped, *refused.drops), key=lambda drop: drop.line)),
            dropped_count=report.dropped_count + refused.dropped,
            examples=tuple(self._examples),
            lengths={name: summary(lengths) for name, lengths in self._lengths.items()} or None,
            truncated_share=share,
            overlap=None if self._held_out is None else self._overlap,
        )
        warnings = [*described.warnings]
        if refused.dropped:
            warnings.append(
                f"{refused.dropped} rows are left out by the tokenizer or its chat template, first line "
                f"{refused.drops[0].line}: {refused.drops[0].reason}"
            )
        if share:
            warnings.append(f"{share:.1%} of the rows are longer than the limit")
        if self._overlap:
            warnings.append(f"{self._overlap} prompts also stand in the held-out set, so its figures will flatter")
        return replace(described, warnings=tuple(warnings))


def _example(record: Record, tokenizer: Tokenizer | None) -> dict[str, object]:
    prompt = record.prompt
    if tokenizer is not None and not isinstance(prompt, str):
        prompt = tokenizer.render(prompt, add_generation_prompt=True)
    example: dict[str, object] = {"line": record.line, "prompt": prompt}
    match record:
        case SftRecord():
            example["completion"] = record.completion
        case PairRecord():
            example |= {"chosen": record.chosen, "rejected": record.rejected}
        case PromptRecord() if record.extra:
            example["extra"] = record.extra
    return example


def token_parts(record: Record, tokenizer: Tokenizer) -> dict[str, list[int]]:
    """Return the token ids of a record by part: prompt, and completion or chosen and rejected. Raises InvalidData."""
    parts = {"prompt": tokenizer.encode_prompt(record.prompt)}
    match record:
        case SftRecord():
            parts["completion"] = tokenizer.encode_completion(record.prompt, record.completion)
        case PairRecord():
            parts["chosen"] = tokenizer.encode_completion(record.prompt, record.chosen)
            parts["rejected"] = tokenizer.encode_completion(record.prompt, record.rejected)
    return parts


def _longest(parts: dict[str, list[int]]) -> int:
    return len(parts["prompt"]) + max((len(ids) for name, ids in parts.items() if name != "prompt"), default=0)


def summary(values: "Sequence[float] | array[int]") -> dict[str, float]:
    """Return mean, percentiles and maximum of numbers, of which there must be one."""
    found = np.percentile(values, _PERCENTILES, method="inverted_cdf")
    percentiles = {f"p{percent}": float(value) for percent, value in zip(_PERCENTILES, found, strict=True)}
    return {"mean": float(np.mean(values)), **percentiles, "max": float(np.max(values))}
