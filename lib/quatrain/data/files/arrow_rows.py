"""Rows of Parquet and Arrow files. Values that JSON lacks become what it has: NaN null, dates and decimals texts.

Bytes have no counterpart; a column of them is left out and named.
"""

import datetime
import decimal
import math
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.data.files.json_rows import OnNote
from quatrain.data.files.opening import unpacked_limit
from quatrain.data.records import NumberedRow
from quatrain.errors import InvalidData

_ROWS = 64
"""Rows of a batch: few, since a dictionary may repeat one long text in all of them."""


def read_parquet(path: Path, name: str, on_note: OnNote) -> Iterator[NumberedRow]:
    """Yield the rows, numbered from 1. Raises InvalidData."""
    number = 0
    try:
        with pq.ParquetFile(path) as file:
            columns = _readable(file.schema_arrow, name, on_note)
            for line, row in _rows(file.iter_batches(batch_size=_ROWS, columns=columns), path, name, on_note):
                number = line
                yield line, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{name} is not a readable Parquet file (after row {number}): {error}.") from None


def read_arrow(path: Path, name: str, on_note: OnNote) -> Iterator[NumberedRow]:
    """Yield the rows of an Arrow file or stream, as `datasets` stores them, numbered from 1. Raises InvalidData."""
    number = 0
    try:
        with pa.memory_map(str(path)) as source:
            with path.open("rb") as file:
                is_file = file.read(6) == b"ARROW1"
            reader = pa.ipc.open_file(source) if is_file else pa.ipc.open_stream(source)
            batches = (reader.get_batch(i) for i in range(reader.num_record_batches)) if is_file else iter(reader)
            columns = _readable(reader.schema, name, on_note)
            small = (
                batch.slice(start, _ROWS).select(columns)
                for batch in batches
                for start in range(0, batch.num_rows, _ROWS)
            )
            for line, row in _rows(small, path, name, on_note):
                number = line
                yield line, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{name} is not a readable Arrow file (after row {number}): {error}.") from None


def _rows(batches: Iterator[pa.RecordBatch], path: Path, name: str, on_note: OnNote) -> Iterator[NumberedRow]:
    limit, unpacked, number = unpacked_limit(path), 0, 0
    for batch in batches:
        unpacked += batch.nbytes
        if unpacked > limit:
            raise InvalidData(f"{name} unpacks to more than {limit} bytes, far more than such data has; split it.")
        odd = [index for index, field in enumerate(batch.schema) if _is_odd(field.type)]
        plain = _with_texts(batch, on_note)
        for row in plain.to_pylist():
            number += 1
            for index in odd:
                column = plain.schema.names[index]
                row[column] = _plain(row[column], column, on_note)
            yield number, row


def _readable(schema: pa.Schema, name: str, on_note: OnNote) -> list[str]:
    twice = [each for each in schema.names if schema.names.count(each) > 1]
    if twice:
        raise InvalidData(f"{name} has more than one column {twice[0]!r}: rename all but one.")
    for field in schema:
        if _is_bytes(field.type):
            on_note(f"the column {field.name!r} holds bytes and is left out")
    return [field.name for field in schema if not _is_bytes(field.type)]


def _with_texts(batch: pa.RecordBatch, on_note: OnNote) -> pa.RecordBatch:
    """Return the batch with dates and times as texts, also inside of lists and structs: Python has not all of them."""
    columns, fields = [], []
    for column, field in zip(batch.columns, batch.schema, strict=True):
        target = _without_times(field.type)
        if target != field.type:
            on_note(f"dates and times in the column {field.name!r} are read as texts")
            try:
                column = column.cast(target)
            except pa.ArrowException:
                on_note(f"dates and times in the column {field.name!r} cannot be written and are read as null")
                column, target = pa.nulls(len(column)), pa.null()
        columns.append(column)
        fields.append(pa.field(field.name, target))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def _without_times(kind: pa.DataType) -> pa.DataType:
    """Return the type with texts in place of dates and times."""
    types = pa.types
    if types.is_temporal(kind):
        return pa.int64() if types.is_duration(kind) else pa.string()
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        inner = _without_times(kind.value_type)
        return kind if inner == kind.value_type else pa.list_(inner)
    if types.is_struct(kind):
        inner_fields = [pa.field(field.name, _without_times(field.type)) for field in kind]
        changed = any(new.type != old.type for new, old in zip(inner_fields, kind, strict=True))
        return pa.struct(inner_fields) if changed else kind
    if types.is_dictionary(kind):
        inner = _without_times(kind.value_type)
        return kind if inner == kind.value_type else inner
    return kind


def _is_bytes(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind))


def _is_odd(kind: pa.DataType) -> bool:
    """Return whether a type may have values that JSON lacks."""
    types = pa.types
    if types.is_nested(kind):
        return True
    if types.is_dictionary(kind):
        return _is_odd(kind.value_type)
    plain = types.is_string(kind) or types.is_large_string(kind) or types.is_integer(kind) or types.is_boolean(kind)
    return not (plain or types.is_null(kind))


def _plain(value: object, column: str, on_note: OnNote) -> object:
    """Return a value as JSON has it."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return value
        on_note(f"NaN or Infinity in the column {column!r} is read as null")
        return None
    if isinstance(value, list | tuple):
        return [_plain(item, column, on_note) for item in value]
    if isinstance(value, dict):
        return {str(key): _plain(item, column, on_note) for key, item in value.items()}
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        on_note(f"dates and times in the column {column!r} are read as texts")
        return value.isoformat()
    if isinstance(value, decimal.Decimal):
        return float(value) if value.is_finite() else None
    if isinstance(value, bytes):
        on_note(f"bytes in the column {column!r} are read as null")
        return None
    return str(value)
