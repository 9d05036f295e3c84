"""Makes prepared tables of records, row group by row group: at no time are all records or tokens in memory."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa

from quatrain.batches.columns import TABLE_ROW_GROUP, ParquetFile
from quatrain.data.records import PairRecord, PromptRecord, SftRecord
from quatrain.data.tables import PAIRS_SCHEMA, PROMPTS_SCHEMA, SFT_SCHEMA, Ids
from quatrain.errors import InvalidData
from quatrain.text import Tokenizer

MAX_GROUP_TOKENS = 1 << 22
"""Tokens after which a row group ends before it has all its rows: long rows would fill the memory."""
_SHOWN = 5


@dataclass(frozen=True)
class Prepared:
    """A table as a Parquet file. notes: for people, what was cut or left out."""

    path: Path
    rows: int
    notes: tuple[str, ...]

    @property
    def data(self) -> bytes:
        """Return the bytes of the file."""
        return self.path.read_bytes()


@dataclass
class LeftOut:
    """Rows that cannot be prepared: their number, and line and reason of the first of them."""

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, line: int, reason: str) -> None:
        """Count a row."""
        self.count += 1
        if len(self.first) < _SHOWN:
            self.first.append((line, reason))

    def refuse_if_empty(self, rows: int) -> None:
        """Raise InvalidData when no row was prepared."""
        if not rows:
            shown = "".join(f"\n  line {line}: {reason}" for line, reason in self.first)
            raise InvalidData(f"None of the {self.count} rows can be used:{shown}")

    def notes(self, truncated: int) -> tuple[str, ...]:
        """Return what was cut and left out, in words."""
        notes = []
        if truncated:
            notes.append(f"{truncated} rows are cut to the longest length")
        if self.count:
            line, reason = self.first[0]
            notes.append(f"{self.count} rows left out, first line {line}: {reason}")
        return tuple(notes)


class PairsWriter:
    """A writer of pair rows whose sides (prompt, answer, EOS) have at most max_length tokens; a longer side is cut."""

    def __init__(self, path: Path, tokenizer: Tokenizer, max_length: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._table = _Table(path, PAIRS_SCHEMA)
        self._left_out = LeftOut()
        self._truncated = 0

    def add(self, record: PairRecord) -> None:
        """Write a pair, unless it cannot be used."""
        try:
            prompt = self._tokenizer.encode_prompt(record.prompt)
            sides = [
                prompt + self._tokenizer.encode_completion(record.prompt, text)
                for text in (record.chosen, record.rejected)
            ]
        except InvalidData as error:
            self._left_out.add(record.line, error.message)
            return
        chosen, rejected = (side[: self._max_length] for side in sides)
        if not prompt or len(prompt) >= self._max_length:
            self._left_out.add(record.line, _no_room(len(prompt), self._max_length))
        elif chosen == rejected:
            reason = f"both sides are equal in their first {self._max_length} tokens"
            self._left_out.add(record.line, reason)
        else:
            self._truncated += max(map(len, sides)) > self._max_length
            tokens = len(chosen) + len(rejected)
            self._table.add(tokens, _ids(chosen), _ids(rejected), len(prompt), record.margin, record.line)

    def close(self) -> Prepared:
        """Return the table. Raises InvalidData when it has no row."""
        self._left_out.refuse_if_empty(self._table.rows)
        return self._table.close(self._left_out.notes(self._truncated))


def prepare_pairs(records: Iterable[PairRecord], tokenizer: Tokenizer, max_length: int, path: Path) -> Prepared:
    """Return pair rows whose sides (prompt, answer, EOS) have at most max_length tokens; a longer side is cut.

    Raises InvalidData when no row is left.
    """
    writer = PairsWriter(path, tokenizer, max_length)
    for record in records:
        writer.add(record)
    return writer.close()


def prepare_sft(records: Iterable[SftRecord], tokenizer: Tokenizer, max_length: int, path: Path) -> Prepared:
    """Return SFT rows of at most max_length tokens. A longer row is cut at its end and gets no EOS.

    Raises InvalidData when no row is left.
    """
    table, left_out, truncated = _Table(path, SFT_SCHEMA), LeftOut(), 0
    for record in records:
        try:
            prompt = tokenizer.encode_prompt(record.prompt)
            completion = tokenizer.encode_completion(record.prompt, record.completion)
        except InvalidData as error:
            left_out.add(record.line, error.message)
            continue
        room = max_length - len(prompt)
        if not prompt or room < 1:
            left_out.add(record.line, _no_room(len(prompt), max_length))
            continue
        truncated += len(completion) > room
        kept = completion[:room]
        table.add(len(prompt) + len(kept), _ids(prompt), _ids(kept), record.line)
    left_out.refuse_if_empty(table.rows)
    return table.close(left_out.notes(truncated))


def prepare_prompts(
    records: Iterable[PromptRecord],
    tokenizer: Tokenizer,
    max_prompt_length: int,
    path: Path,
    truncate: str = "refuse",
) -> Prepared:
    """Return prompt rows of at most max_prompt_length tokens; `left` cuts the beginning of a longer one.

    Raises InvalidData: a longer prompt under `refuse` (the message names lines and lengths), or no row left.
    """
    table, left_out, seen = _Table(path, PROMPTS_SCHEMA), LeftOut(), 0
    too_long, first = 0, list[tuple[int, int]]()
    for record in records:
        seen += 1
        try:
            ids = tokenizer.encode_prompt(record.prompt)
        except InvalidData as error:
            left_out.add(record.line, error.message)
            continue
        if not ids:
            left_out.add(record.line, "the prompt has no tokens")
            continue
        if len(ids) > max_prompt_length:
            too_long += 1
            first += [(record.line, len(ids))] if len(first) < _SHOWN else []
        kept = ids[-max_prompt_length:]
        table.add(len(kept), _ids(kept), _json(record.prompt), _json(record.extra), record.line)
    if too_long and truncate != "left":
        shown = ", ".join(f"line {line}: {length}" for line, length in first)
        raise InvalidData(
            f"{too_long} of {seen} prompts are longer than max_prompt_length, {max_prompt_length} tokens "
            f"({shown}). Raise ppo.max_prompt_length, shorten them, or set ppo.truncate_prompt: left."
        )
    left_out.refuse_if_empty(table.rows)
    return table.close(left_out.notes(too_long))


class _Table:
    """A Parquet file that is written as rows come."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.rows = 0
        self._path = path
        self._schema = schema
        self._file = ParquetFile(path, schema)
        self._columns: list[list[object]] = [[] for _ in schema]
        self._tokens = 0

    def add(self, tokens: int, *values: object) -> None:
        """Write a row of these values, which has so many tokens."""
        for column, value in zip(self._columns, values, strict=True):
            column.append(value)
        self.rows += 1
        self._tokens += tokens
        if len(self._columns[0]) == TABLE_ROW_GROUP or self._tokens >= MAX_GROUP_TOKENS:
            self._flush()

    def close(self, notes: tuple[str, ...]) -> Prepared:
        """Return the finished table."""
        self._flush()
        self._file.close()
        return Prepared(self._path, self.rows, notes)

    def _flush(self) -> None:
        if self._columns[0]:
            fields = zip(self._columns, self._schema, strict=True)
            self._file.add([pa.array(column, field.type) for column, field in fields])
        self._columns = [[] for _ in self._schema]
        self._tokens = 0


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
