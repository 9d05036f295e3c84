"""The results of a PPO step for every completion token: Learner.Step writes them, `step_completed` names them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from quatrain.batches.columns import ragged_column, ragged_rows, read_parquet, write_parquet

FloatArray = npt.NDArray[np.float32]

_FLOAT_LISTS = ("logprobs", "values", "advantages", "returns", "entropy")
SCHEMA = pa.schema([("rollout_id", pa.string()), *((name, pa.list_(pa.float32())) for name in _FLOAT_LISTS)])


@dataclass(frozen=True, eq=False)
class TokenRow:
    """Per-token results of one rollout; every array has one float32 for each completion token.

    `logprobs` are the proximal policy's (the learner's own before the step), `entropy` is in nats. `values` and
    `returns` are empty where the job has no critic.
    """

    rollout_id: str
    logprobs: FloatArray
    values: FloatArray
    advantages: FloatArray
    returns: FloatArray
    entropy: FloatArray


def write_tokens(rows: Sequence[TokenRow]) -> bytes:
    """Return the Parquet bytes of the rows in the given order. Equal rows give equal bytes."""
    ids = pa.array([row.rollout_id for row in rows], type=pa.string())
    lists = [ragged_column([getattr(row, name) for row in rows], np.float32) for name in _FLOAT_LISTS]
    return write_parquet([ids, *lists], SCHEMA)


def read_tokens(data: bytes) -> list[TokenRow]:
    """Return the rows in their order. Raises Corrupt on bytes that write_tokens did not make."""
    table = read_parquet(data, SCHEMA)
    lists = [ragged_rows(table.column(name), np.float32) for name in _FLOAT_LISTS]
    return [TokenRow(*values) for values in zip(table.column("rollout_id").to_pylist(), *lists, strict=True)]
