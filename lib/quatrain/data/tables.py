"""Prepared token tables as Parquet: equal rows give equal bytes, so that a table's digest names its content.

sft: prompt_ids, completion_ids (EOS at the end unless the row was cut), line.
pairs: chosen_ids, rejected_ids (prompt, answer, EOS), prompt_length, margin (nullable), line.
prompts: prompt_ids, prompt_json (a string or messages), extra_json (the row's other columns), line.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.errors import Corrupt

Ids = npt.NDArray[np.int32]

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
_ROW_GROUP = 1 << 16


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


def write(columns: Sequence[pa.Array], schema: pa.Schema) -> bytes:
    """Parquet bytes that depend on the values only."""
    sink = pa.BufferOutputStream()
    pq.write_table(
        pa.Table.from_arrays(list(columns), schema=schema),
        sink,
        row_group_size=_ROW_GROUP,
        compression="zstd",
        compression_level=3,
        use_dictionary=False,
        write_statistics=False,
        store_schema=False,
        version="2.6",
        data_page_version="1.0",
    )
    data: bytes = sink.getvalue().to_pybytes()
    return data


def read_sft(data: bytes) -> SftTable:
    """The table that prepare_sft wrote. Raises Corrupt."""
    table = _read(data, SFT_SCHEMA)
    return SftTable(_ids(table, "prompt_ids"), _ids(table, "completion_ids"), table["line"].to_pylist())


def read_pairs(data: bytes) -> PairTable:
    """The table that prepare_pairs wrote. Raises Corrupt."""
    table = _read(data, PAIRS_SCHEMA)
    return PairTable(
        _ids(table, "chosen_ids"),
        _ids(table, "rejected_ids"),
        table["prompt_length"].to_pylist(),
        table["margin"].to_pylist(),
        table["line"].to_pylist(),
    )


def read_prompts(data: bytes) -> PromptTable:
    """The table that prepare_prompts wrote. Raises Corrupt."""
    table = _read(data, PROMPTS_SCHEMA)
    return PromptTable(
        _ids(table, "prompt_ids"),
        table["prompt_json"].to_pylist(),
        table["extra_json"].to_pylist(),
        table["line"].to_pylist(),
    )


def _read(data: bytes, schema: pa.Schema) -> pa.Table:
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        if table.column_names != schema.names:
            raise Corrupt(f"The table has the columns {table.column_names}, not {schema.names}.")
        table = table.cast(schema)
    except (pa.ArrowException, OSError) as error:
        raise Corrupt(f"The prepared table is not readable Parquet: {error}.") from None
    nullable = ("margin",)
    if any(table[name].null_count for name in schema.names if name not in nullable):
        raise Corrupt("The prepared table has nulls where values are needed.")
    return table


def _ids(table: pa.Table, name: str) -> list[Ids]:
    """A list column as one int32 view a row."""
    rows: list[Ids] = []
    for chunk in table[name].chunks:
        offsets = np.asarray(chunk.offsets)
        values = np.asarray(chunk.values, dtype=np.int32)
        rows += [values[start:end] for start, end in itertools.pairwise(offsets.tolist())]
    return rows
