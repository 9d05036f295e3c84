"""Prepared token tables: what the stages read. Made once from records, as Parquet, and pinned by their digest.

sft: prompt_ids, completion_ids (EOS at the end unless the row was cut), line.
pairs: chosen_ids, rejected_ids (prompt, answer, EOS), prompt_length, margin (nullable), line.
prompts: prompt_ids, prompt_json (a string or messages), extra_json (the row's other columns), line.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quatrain.batches.columns import TABLE_ROW_GROUP, ragged_rows, read_parquet, write_parquet
from quatrain.data.records import Drop, PairRecord, PromptRecord, SftRecord
from quatrain.errors import Corrupt, InvalidData
from quatrain.text import Tokenizer

Ids = npt.NDArray[np.int32]
"""Token ids of one row, shape [tokens]."""

IDS = pa.list_(pa.int32())

SFT_SCHEMA = pa.schema([("prompt_ids", IDS), ("completion_ids", IDS), ("line", pa.int64())])
PAIRS_SCHEMA = pa.schema(
    [
        ("chosen_ids", IDS),
        ("rejected_ids", IDS),
        ("prompt_length", pa.int32()),
        ("margin", pa.float64()),
        ("line", pa.int64()),
    ]
)
PROMPTS_SCHEMA = pa.schema(
    [("prompt_ids", IDS), ("prompt_json", pa.string()), ("extra_json", pa.string()), ("line", pa.int64())]
)


class Prepared(NamedTuple):
    """A table as Parquet bytes, its number of rows, and notes for people: what was cut or left out."""

    data: bytes
    rows: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class SftTable:
    """Rows of an SFT set: int32 ids of prompt and completion, and the line of the data file."""

    prompt_ids: list[Ids]
    completion_ids: list[Ids]
    line: list[int]


@dataclass(frozen=True)
class PairTable:
    """Rows of preference pairs: int32 ids of both sides, tokens of the prompt that both begin with, margin or None."""

    chosen_ids: list[Ids]
    rejected_ids: list[Ids]
    prompt_length: list[int]
    margin: list[float | None]
    line: list[int]


@dataclass(frozen=True)
class PromptTable:
    """Rows of prompts: int32 ids, the prompt and the other columns as JSON text."""

    prompt_ids: list[Ids]
    prompt_json: list[str]
    extra_json: list[str]
    line: list[int]


def prepare_sft(records: Sequence[SftRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    """Return SFT rows of at most max_length tokens. A longer row is cut at its end and gets no EOS.

    Raises InvalidData when no row is left.
    """
    rows: list[tuple[Ids, Ids, int]] = []
    dropped: list[Drop] = []
    truncated = 0
    for record in records:
        try:
            prompt = tokenizer.encode_prompt(record.prompt)
            completion = tokenizer.encode_completion(record.prompt, record.completion)
        except InvalidData as error:
            dropped.append(Drop(record.line, error.message))
            continue
        room = max_length - len(prompt)
        if not prompt or room < 1:
            dropped.append(Drop(record.line, _no_room(len(prompt), max_length)))
            continue
        truncated += len(completion) > room
        rows.append((_ids(prompt), _ids(completion[:room]), record.line))
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([row[0] for row in rows], IDS),
        pa.array([row[1] for row in rows], IDS),
        pa.array([row[2] for row in rows], pa.int64()),
    ]
    return Prepared(write_parquet(columns, SFT_SCHEMA, TABLE_ROW_GROUP), len(rows), _notes(dropped, truncated))


def prepare_pairs(records: Sequence[PairRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    """Return pair rows whose sides (prompt, answer, EOS) have at most max_length tokens; a longer side is cut.

    Raises InvalidData when no row is left.
    """
    rows: list[tuple[Ids, Ids, int, float | None, int]] = []
    dropped: list[Drop] = []
    truncated = 0
    for record in records:
        try:
            prompt = tokenizer.encode_prompt(record.prompt)
            sides = [
                prompt + tokenizer.encode_completion(record.prompt, text) for text in (record.chosen, record.rejected)
            ]
        except InvalidData as error:
            dropped.append(Drop(record.line, error.message))
            continue
        chosen, rejected = (side[:max_length] for side in sides)
        if not prompt or len(prompt) >= max_length:
            dropped.append(Drop(record.line, _no_room(len(prompt), max_length)))
        elif chosen == rejected:
            dropped.append(Drop(record.line, f"both sides are equal in their first {max_length} tokens"))
        else:
            truncated += max(map(len, sides)) > max_length
            rows.append((_ids(chosen), _ids(rejected), len(prompt), record.margin, record.line))
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([row[0] for row in rows], IDS),
        pa.array([row[1] for row in rows], IDS),
        pa.array([row[2] for row in rows], pa.int32()),
        pa.array([row[3] for row in rows], pa.float64()),
        pa.array([row[4] for row in rows], pa.int64()),
    ]
    return Prepared(write_parquet(columns, PAIRS_SCHEMA, TABLE_ROW_GROUP), len(rows), _notes(dropped, truncated))


def prepare_prompts(
    records: Sequence[PromptRecord],
    tokenizer: Tokenizer,
    max_prompt_length: int,
    truncate: str = "refuse",
) -> Prepared:
    """Return prompt rows of at most max_prompt_length tokens; `left` cuts the beginning of a longer one.

    Raises InvalidData: a longer prompt under `refuse` (the message names lines and lengths), or no row left.
    """
    rows: list[tuple[Ids, PromptRecord]] = []
    dropped: list[Drop] = []
    too_long: list[tuple[int, int]] = []
    for record in records:
        try:
            ids = tokenizer.encode_prompt(record.prompt)
        except InvalidData as error:
            dropped.append(Drop(record.line, error.message))
            continue
        if not ids:
            dropped.append(Drop(record.line, "the prompt has no tokens"))
            continue
        if len(ids) > max_prompt_length:
            too_long.append((record.line, len(ids)))
        rows.append((_ids(ids[-max_prompt_length:]), record))
    if too_long and truncate != "left":
        shown = ", ".join(f"line {line}: {length}" for line, length in too_long[:5])
        raise InvalidData(
            f"{len(too_long)} of {len(records)} prompts are longer than max_prompt_length, {max_prompt_length} tokens "
            f"({shown}). Raise ppo.max_prompt_length, shorten them, or set ppo.truncate_prompt: left."
        )
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([ids for ids, _ in rows], IDS),
        pa.array([_json(record.prompt) for _, record in rows], pa.string()),
        pa.array([_json(record.extra) for _, record in rows], pa.string()),
        pa.array([record.line for _, record in rows], pa.int64()),
    ]
    return Prepared(write_parquet(columns, PROMPTS_SCHEMA, TABLE_ROW_GROUP), len(rows), _notes(dropped, len(too_long)))


def _ids(ids: list[int]) -> Ids:
    """Return the ids at four bytes a token; a list takes nine times as many."""
    return np.asarray(ids, dtype=np.int32)


def _json(value: object) -> str:
    # Key order is kept: reward functions see the columns in the file's order.
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def _no_room(prompt_tokens: int, max_length: int) -> str:
    if not prompt_tokens:
        return "the prompt has no tokens"
    return f"the prompt has {prompt_tokens} tokens and leaves no room for an answer within max_length {max_length}"


def _refuse_empty(rows: Sequence[object], dropped: list[Drop]) -> None:
    if not rows:
        shown = "".join(f"\n  line {drop.line}: {drop.reason}" for drop in dropped[:5])
        raise InvalidData(f"None of the {len(dropped)} rows can be used:{shown}")


def _notes(dropped: Sequence[Drop], truncated: int) -> tuple[str, ...]:
    notes = []
    if truncated:
        notes.append(f"{truncated} rows are cut to the longest length")
    if dropped:
        notes.append(f"{len(dropped)} rows left out, first line {dropped[0].line}: {dropped[0].reason}")
    return tuple(notes)


def read_sft(data: bytes) -> SftTable:
    """Return the table that prepare_sft wrote. Raises Corrupt."""
    table = _read(data, SFT_SCHEMA)
    return SftTable(
        ragged_rows(table["prompt_ids"], np.int32),
        ragged_rows(table["completion_ids"], np.int32),
        table["line"].to_pylist(),
    )


def read_pairs(data: bytes) -> PairTable:
    """Return the table that prepare_pairs wrote. Raises Corrupt."""
    table = _read(data, PAIRS_SCHEMA, nullable=("margin",))
    return PairTable(
        ragged_rows(table["chosen_ids"], np.int32),
        ragged_rows(table["rejected_ids"], np.int32),
        table["prompt_length"].to_pylist(),
        table["margin"].to_pylist(),
        table["line"].to_pylist(),
    )


def read_prompts(data: bytes) -> PromptTable:
    """Return the table that prepare_prompts wrote. Raises Corrupt."""
    table = _read(data, PROMPTS_SCHEMA)
    return PromptTable(
        ragged_rows(table["prompt_ids"], np.int32),
        table["prompt_json"].to_pylist(),
        table["extra_json"].to_pylist(),
        table["line"].to_pylist(),
    )


def _read(data: bytes, schema: pa.Schema, nullable: Sequence[str] = ()) -> pa.Table:
    table = read_parquet(data, schema)
    if any(table[name].null_count for name in schema.names if name not in nullable):
        raise Corrupt("the prepared table has nulls where values are needed")
    return table
