"""Records to token tables: what the stages read. One table a data set, made once and pinned by its digest."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa

from quatrain.data import tables
from quatrain.data.encoding import encode_completion
from quatrain.data.records import Drop, PairRecord, PromptRecord, SftRecord
from quatrain.errors import InvalidData
from quatrain.text import Tokenizer


@dataclass(frozen=True)
class Prepared:
    """A table as Parquet bytes: rows in it, records cut to the limit, records left out."""

    data: bytes
    rows: int
    truncated: int
    dropped: tuple[Drop, ...]


def prepare_sft(records: Sequence[SftRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    """SFT rows of at most max_length tokens (prompt and completion). A longer row is cut at its end and gets no EOS.

    Raises InvalidData when no row is left.
    """
    rows: list[tuple[list[int], list[int], int]] = []
    dropped: list[Drop] = []
    truncated = 0
    for record in records:
        try:
            prompt = tokenizer.encode_prompt(record.prompt)
            completion = encode_completion(tokenizer, record.prompt, record.completion)
        except InvalidData as error:
            dropped.append(Drop(record.line, error.message))
            continue
        room = max_length - len(prompt)
        if not prompt or room < 1:
            dropped.append(Drop(record.line, _no_room(len(prompt), max_length)))
            continue
        truncated += len(completion) > room
        rows.append((prompt, completion[:room], record.line))
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([row[0] for row in rows], tables.IDS),
        pa.array([row[1] for row in rows], tables.IDS),
        pa.array([row[2] for row in rows], pa.int64()),
    ]
    return Prepared(tables.write(columns, tables.SFT_SCHEMA), len(rows), truncated, tuple(dropped))


def prepare_pairs(records: Sequence[PairRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    """Pair rows whose sides (prompt, answer, EOS) have at most max_length tokens; a longer side is cut at its end.

    Raises InvalidData when no row is left.
    """
    rows: list[tuple[list[int], list[int], int, float | None, int]] = []
    dropped: list[Drop] = []
    truncated = 0
    for record in records:
        try:
            prompt = tokenizer.encode_prompt(record.prompt)
            sides = [
                prompt + encode_completion(tokenizer, record.prompt, text) for text in (record.chosen, record.rejected)
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
            rows.append((chosen, rejected, len(prompt), record.margin, record.line))
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([row[0] for row in rows], tables.IDS),
        pa.array([row[1] for row in rows], tables.IDS),
        pa.array([row[2] for row in rows], pa.int32()),
        pa.array([row[3] for row in rows], pa.float64()),
        pa.array([row[4] for row in rows], pa.int64()),
    ]
    return Prepared(tables.write(columns, tables.PAIRS_SCHEMA), len(rows), truncated, tuple(dropped))


def prepare_prompts(
    records: Sequence[PromptRecord],
    tokenizer: Tokenizer,
    max_prompt_length: int,
    truncate: Literal["refuse", "left"] = "refuse",
) -> Prepared:
    """Prompt rows of at most max_prompt_length tokens; `left` cuts the beginning of a longer one.

    Raises InvalidData: a longer prompt under `refuse` (the message names lines and lengths), or no row left.
    """
    rows: list[tuple[list[int], PromptRecord]] = []
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
        rows.append((ids[-max_prompt_length:], record))
    if too_long and truncate == "refuse":
        shown = ", ".join(f"line {line}: {length}" for line, length in too_long[:5])
        raise InvalidData(
            f"{len(too_long)} of {len(records)} prompts are longer than max_prompt_length, {max_prompt_length} tokens "
            f"({shown}). Raise ppo.max_prompt_length, shorten them, or set ppo.truncate_prompt: left."
        )
    _refuse_empty(rows, dropped)
    columns = [
        pa.array([ids for ids, _ in rows], tables.IDS),
        pa.array([_json(record.prompt) for _, record in rows], pa.string()),
        pa.array([_json(record.extra) for _, record in rows], pa.string()),
        pa.array([record.line for _, record in rows], pa.int64()),
    ]
    return Prepared(tables.write(columns, tables.PROMPTS_SCHEMA), len(rows), len(too_long), tuple(dropped))


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
