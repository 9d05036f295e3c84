"""Sealed batches: the immutable input of one PPO step (or of one evaluation).

One row for each expected sample, ordered by (prompt position in the step, sample index): a rollout, a skip, or a
refusal with its reason. Prompt, completion, score and terms are kept beside the ids, so the rollout browser reads the
same file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quatrain.batches.columns import ragged_column, ragged_rows, read_parquet, write_parquet

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]

_INT_LISTS = ("prompt_ids", "completion_ids")
_FLOAT_LISTS = ("logprobs", "ref_logprobs")

SCHEMA = pa.schema(
    [
        ("rollout_id", pa.string()),
        ("prompt_index", pa.int64()),
        ("sample_index", pa.int64()),
        ("seed", pa.uint64()),
        ("policy_version", pa.int64()),
        ("policy_digest", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("prompt_ids", pa.list_(pa.int32())),
        ("completion_ids", pa.list_(pa.int32())),
        ("logprobs", pa.list_(pa.float32())),
        ("ref_logprobs", pa.list_(pa.float32())),
        ("finish_reason", pa.string()),
        ("score", pa.float64()),
        ("gold", pa.float64()),
        ("terms", pa.string()),
        ("logged", pa.string()),
        ("prompt", pa.string()),
        ("completion", pa.string()),
        ("extra", pa.string()),
    ]
)


def _no_ids() -> IntArray:
    return np.zeros(0, dtype=np.int32)


def _no_numbers() -> FloatArray:
    return np.zeros(0, dtype=np.float32)


@dataclass(frozen=True, eq=False)
class BatchRow:
    """One expected sample of a step.

    `status` is `rollout`, `skipped` (every reward function answered None) or `refused` (`reason` says why).
    `logprobs` and `ref_logprobs` have one number for each completion token; they are empty for a sample that failed
    before. Both are logs of probabilities under the sampled distribution, temperature included. `finish_reason` is
    `stop` or `length`. `score` is the final score (None without one), `gold` the gold score of evaluations. `terms`,
    `logged` and `extra` are canonical JSON objects.
    """

    rollout_id: str
    prompt_index: int
    sample_index: int
    seed: int
    policy_version: int
    policy_digest: str
    status: str
    reason: str = ""
    prompt_ids: IntArray = field(default_factory=_no_ids)
    completion_ids: IntArray = field(default_factory=_no_ids)
    logprobs: FloatArray = field(default_factory=_no_numbers)
    ref_logprobs: FloatArray = field(default_factory=_no_numbers)
    finish_reason: str = ""
    score: float | None = None
    gold: float | None = None
    terms: str = "{}"
    logged: str = "{}"
    prompt: str = ""
    completion: str = ""
    extra: str = "{}"


def write_batch(rows: Sequence[BatchRow]) -> bytes:
    """Return the Parquet bytes of a batch, rows in the given order. Equal rows give equal bytes."""
    return write_parquet(
        [_column(rows, name, kind) for name, kind in zip(SCHEMA.names, SCHEMA.types, strict=True)], SCHEMA
    )


def read_batch(data: bytes) -> list[BatchRow]:
    """Return the rows of a batch in their order. Raises Corrupt on bytes that write_batch did not make."""
    table = read_parquet(data, SCHEMA)
    columns = [_values(table.column(name), name) for name in SCHEMA.names]
    return [BatchRow(*values) for values in zip(*columns, strict=True)]


def _column(rows: Sequence[BatchRow], name: str, kind: pa.DataType) -> pa.Array:
    values = [getattr(row, name) for row in rows]
    if name in _INT_LISTS:
        return ragged_column(values, np.int32)
    if name in _FLOAT_LISTS:
        return ragged_column(values, np.float32)
    return pa.array(values, type=kind)


def _values(column: pa.ChunkedArray, name: str) -> list[Any]:
    if name in _INT_LISTS:
        return ragged_rows(column, np.int32)
    if name in _FLOAT_LISTS:
        return ragged_rows(column, np.float32)
    return list(column.to_pylist())
