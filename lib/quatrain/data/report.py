"""What is known about a data set: counts, drops, token lengths, duplicates, examples, overlap with held-out prompts."""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np

from quatrain.data.records import Drop, PairRecord, Prompt, PromptRecord, Record, SftRecord
from quatrain.digests import canonical_json
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

    def to_json(self) -> dict[str, object]:
        """Return plain JSON values, as `data validate -o json` prints them."""
        return asdict(self)


def describe(
    report: Report,
    records: Sequence[Record],
    tokenizer: Tokenizer | None = None,
    *,
    max_length: int | None = None,
    held_out: Sequence[PromptRecord] | None = None,
) -> Report:
    """Return the report with examples and, as far as the arguments allow, lengths, share truncated and overlap.

    max_length: longest record in tokens (prompts: longest prompt). Raises InvalidData when the template fails.
    """
    described = replace(report, examples=tuple(_example(record, tokenizer) for record in records[:EXAMPLES]))
    if tokenizer is not None:
        parts = [_token_parts(record, tokenizer) for record in records]
        lengths = {name: _summary([len(part[name]) for part in parts]) for name in parts[0]}
        described = replace(described, lengths=lengths)
        if max_length is not None:
            totals = [_longest(part) for part in parts]
            share = sum(total > max_length for total in totals) / len(totals)
            described = replace(described, truncated_share=share)
    if held_out is not None:
        overlap = count_overlap([record.prompt for record in records], [row.prompt for row in held_out])
        described = replace(described, overlap=overlap)
    return replace(described, warnings=tuple(_warnings(described)))


def count_duplicates(records: Sequence[Record]) -> int:
    """Return the number of records equal to an earlier one in everything but the line."""
    seen = {_fingerprint({**vars(record), "line": 0}) for record in records}
    return len(records) - len(seen)


def count_overlap(prompts: Sequence[Prompt], held_out: Sequence[Prompt]) -> int:
    """Return how many of the prompts are also in the held-out set."""
    known = {_fingerprint(prompt) for prompt in held_out}
    return sum(_fingerprint(prompt) in known for prompt in prompts)


def _fingerprint(value: object) -> bytes:
    """Return a digest to compare values by, which takes less memory than they do."""
    return hashlib.blake2b(canonical_json(value), digest_size=16).digest()


def _warnings(report: Report) -> list[str]:
    warnings = list(report.warnings)
    if report.dropped:
        warnings.append(f"{len(report.dropped)} of {report.rows} rows are dropped")
    if report.duplicates:
        warnings.append(f"{report.duplicates} rows repeat an earlier row")
    if report.truncated_share:
        warnings.append(f"{report.truncated_share:.1%} of the rows are longer than the limit")
    if report.overlap:
        warnings.append(f"{report.overlap} prompts also stand in the held-out set, so its figures will flatter")
    return warnings


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


def _token_parts(record: Record, tokenizer: Tokenizer) -> dict[str, list[int]]:
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


def _summary(lengths: list[int]) -> dict[str, float]:
    values = np.percentile(lengths, _PERCENTILES, method="inverted_cdf")
    summary = {f"p{percent}": float(value) for percent, value in zip(_PERCENTILES, values, strict=True)}
    return {"mean": float(np.mean(lengths)), **summary, "max": float(max(lengths))}
