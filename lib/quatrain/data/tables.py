"""Prepared token tables: what the stages read. `preparing` makes them, as Parquet; they are pinned by their digest.

sft: prompt_ids, completion_ids (EOS at the end unless the row was cut), line.
pairs: chosen_ids, rejected_ids (prompt, answer, EOS), prompt_length, margin (nullable), line.
prompts: prompt_ids, prompt_json (a string or messages), extra_json (the row's other columns), line.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quatrain.batches.columns import ragged_rows, read_parquet
from quatrain.errors import Corrupt

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
