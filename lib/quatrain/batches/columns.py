"""Columns to Parquet bytes and back, the same bytes for the same rows.

Nothing that depends on time or on the machine enters the file: one schema, one writer version, no statistics, a fixed
compression level. Ragged columns are laid out as values + offsets, so that no row becomes a Python list on the way.
"""

import io
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.errors import Corrupt

# Rows of a row group; part of the bytes, so it never follows a library's default.
BATCH_ROW_GROUP, TABLE_ROW_GROUP = 1 << 14, 1 << 16
_OPTIONS: Final[dict[str, Any]] = {
    "version": "2.6",
    "data_page_version": "1.0",
    "compression": "zstd",
    "compression_level": 3,
    "use_dictionary": False,
    "write_statistics": False,
    "store_schema": False,
}


def ragged_column(rows: Sequence[npt.NDArray[Any]], dtype: type[np.generic]) -> pa.Array:
    """Return a list column of rows of numbers, each cast to `dtype` (int32 or float32)."""
    offsets = np.zeros(len(rows) + 1, dtype=np.int32)
    if rows:
        np.cumsum([len(row) for row in rows], out=offsets[1:])
    values = np.concatenate(rows).astype(dtype, copy=False) if rows else np.zeros(0, dtype=dtype)
    return pa.ListArray.from_arrays(
        pa.array(offsets, type=pa.int32()), pa.array(values, type=pa.from_numpy_dtype(dtype))
    )


def ragged_rows(column: pa.ChunkedArray, dtype: type[np.generic]) -> list[npt.NDArray[Any]]:
    """Return the rows of a list column as arrays of `dtype`, each a view of one shared array."""
    rows: list[npt.NDArray[Any]] = []
    for chunk in column.chunks:
        if chunk.null_count:
            raise Corrupt("a list column holds nulls; the file was not written by Quatrain")
        offsets = chunk.offsets.to_numpy()
        values = chunk.values.to_numpy(zero_copy_only=False).astype(dtype, copy=False)
        rows.extend(values[start:end] for start, end in pairwise(offsets))
    return rows


def write_parquet(arrays: Sequence[pa.Array], schema: pa.Schema, row_group: int = BATCH_ROW_GROUP) -> bytes:
    """Return the Parquet bytes of a table. They are the same for equal columns and one version of pyarrow."""
    buffer = io.BytesIO()
    table = pa.Table.from_arrays(list(arrays), schema=schema)
    pq.write_table(table, buffer, row_group_size=row_group, **_OPTIONS)
    return buffer.getvalue()


class ParquetFile:
    """A Parquet file that grows by row groups: written with the groups of `write_parquet`, it has the same bytes.

    Raises OSError as files do.
    """

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._schema = schema
        self._writer = pq.ParquetWriter(path, schema, **_OPTIONS)

    def add(self, arrays: Sequence[pa.Array]) -> None:
        """Write a row group."""
        table = pa.Table.from_arrays(list(arrays), schema=self._schema)
        self._writer.write_table(table, row_group_size=len(table) or None)

    def close(self) -> None:
        """Write the end of the file."""
        self._writer.close()


def read_parquet(data: bytes, schema: pa.Schema) -> pa.Table:
    """Return the table in `data`, columns in the schema's order. Raises Corrupt if it is not one of this schema."""
    try:
        table = pq.read_table(io.BytesIO(data))
        missing = [name for name in schema.names if name not in table.column_names]
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"{len(data)} bytes cannot be read as Parquet: {error}") from error
    if missing:
        raise Corrupt(f"a table lacks the columns {', '.join(missing)}; it was not written by this version")
    try:
        table = table.select(schema.names).cast(schema)
        table.validate(full=True)
        return table
    except (pa.ArrowException, ValueError) as error:
        raise Corrupt(f"a table has a column of another type: {error}") from error
