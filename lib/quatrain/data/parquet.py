"""Parquet bytes of a table that depend on its values only, so that a table's digest names its content."""

import itertools
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.errors import Corrupt

Ids = npt.NDArray[np.int32]
"""Token ids of one row, shape [tokens]."""

IDS = pa.list_(pa.int32())
_ROW_GROUP = 1 << 16


def write(columns: Sequence[pa.Array], schema: pa.Schema) -> bytes:
    """The Parquet file as bytes; equal values give equal bytes."""
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


def read(data: bytes, schema: pa.Schema, nullable: Sequence[str] = ()) -> pa.Table:
    """The table that `write` wrote with this schema. Raises Corrupt."""
    try:
        table = pq.read_table(pa.BufferReader(data), use_threads=False)
        if table.column_names != schema.names:
            raise Corrupt(f"The table has the columns {table.column_names}, not {schema.names}.")
        table = table.cast(schema)
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise Corrupt(f"The prepared table is not readable Parquet: {error}.") from None
    if any(table[name].null_count for name in schema.names if name not in nullable):
        raise Corrupt("The prepared table has nulls where values are needed.")
    return table


def id_rows(table: pa.Table, name: str) -> list[Ids]:
    """A list column as one int32 view a row."""
    rows: list[Ids] = []
    for chunk in table[name].chunks:
        offsets = np.asarray(chunk.offsets)
        values = np.asarray(chunk.values, dtype=np.int32)
        rows += [values[start:end] for start, end in itertools.pairwise(offsets.tolist())]
    return rows
