"""Rows of a data file as dicts with line numbers: JSON Lines, JSON, CSV and Parquet."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn

import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.data.records import Drop, Row
from quatrain.errors import InvalidData
from quatrain.json_values import JsonValue

NumberedRow = tuple[int, Row]
"""The line of the file at which the row begins, and the row."""
OnBad = Callable[[int, str], None]
UNPACKED_BYTES = 2**30
_FORMATS = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "json", ".csv": "csv", ".parquet": "parquet"}


def read_rows(
    path: Path,
    format: str | None = None,
    columns: dict[str, str] | None = None,
    dropped: list[Drop] | None = None,
) -> Iterator[NumberedRow]:
    """Yield (line, row) in file order.

    Args:
        path: the file.
        format: jsonl, json, csv or parquet; None: by extension, else by content.
        columns: canonical column name to the file's column name; renamed in the rows.
        dropped: receives rows that cannot be read (bad JSON, bad UTF-8); None: the first one raises.

    Raises:
        InvalidData: no such file, an empty or unreadable file, or a bad row when `dropped` is None.
    """
    if not path.is_file():
        raise InvalidData(f"The data file {path} does not exist.")
    if path.stat().st_size == 0:
        raise InvalidData(f"The data file {path} is empty.")

    def on_bad(line: int, reason: str) -> None:
        if dropped is None:
            raise InvalidData(f"{path}:{line}: {reason}.")
        dropped.append(Drop(line, reason))

    for line, row in _READERS[format or detect_format(path)](path, on_bad):
        yield line, _rename(row, columns or {})


def detect_format(path: Path) -> str:
    """Return jsonl, json, csv or parquet. Raises InvalidData when neither extension nor content shows which."""
    known = _FORMATS.get(path.suffix.lower())
    with path.open("rb") as file:
        head = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    if known == "json" or known is None:
        # Many files that are called .json hold one object a line.
        if head.startswith(b"["):
            return "json"
        if head.startswith(b"{"):
            return "jsonl"
        if head.startswith(b"PAR1"):
            return "parquet"
    if known is None:
        raise InvalidData(
            f"The format of {path} is not known: it is neither JSON nor Parquet and has no extension "
            ".jsonl, .json, .csv or .parquet. Give `format`."
        )
    return known


def _rename(row: Row, columns: dict[str, str]) -> Row:
    if not columns:
        return row
    taken = set(columns.values())
    renamed = {canonical: row[source] for canonical, source in columns.items() if source in row}
    return {**{name: value for name, value in row.items() if name not in taken | set(columns)}, **renamed}


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            yield number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line


def _read_jsonl(path: Path, on_bad: OnBad) -> Iterator[NumberedRow]:
    for number, raw in _lines(path):
        if not raw.strip():
            continue
        try:
            value = _loads(raw.decode("utf-8"))
        except UnicodeDecodeError as error:
            on_bad(number, _not_utf8(error))
        except json.JSONDecodeError as error:
            on_bad(number, f"not valid JSON: {error.msg} at column {error.colno}")
        except (ValueError, RecursionError) as error:
            on_bad(number, f"not valid JSON: {error}")
        else:
            if isinstance(value, dict):
                yield number, value
            else:
                on_bad(number, f"a JSON object is needed, not {_kind(value)}")


def _read_json(path: Path, on_bad: OnBad) -> Iterator[NumberedRow]:
    text = _decode_all(path)
    decoder = json.JSONDecoder(parse_constant=_refuse_constant)
    position = _skip_space(text, 0)
    if text[position : position + 1] != "[":
        raise InvalidData(f"{path}: a JSON data file must be a list of objects.")
    position = _skip_space(text, position + 1)
    line, counted = 1, 0
    while text[position : position + 1] != "]":
        line, counted = line + text.count("\n", counted, position), position
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            raise InvalidData(f"{path}:{line}: not valid JSON: {error}.") from None
        if isinstance(value, dict):
            yield line, value
        else:
            on_bad(line, f"a JSON object is needed, not {_kind(value)}")
        position = _skip_space(text, position)
        if text[position : position + 1] == ",":
            position = _skip_space(text, position + 1)
        elif text[position : position + 1] != "]":
            raise InvalidData(f"{path}:{line}: not valid JSON: a comma or ] is needed after this object.")
    if _skip_space(text, position + 1) != len(text):
        raise InvalidData(f"{path}: not valid JSON: there is text after the closing ].")


def _read_csv(path: Path, on_bad: OnBad) -> Iterator[NumberedRow]:
    reader = csv.reader(_csv_lines(path), strict=True)
    start = 1
    try:
        header = next(reader, [])
        if not header or not all(header) or len(set(header)) != len(header):
            raise InvalidData(f"{path}:1: the first line must name the columns, each once; it has {header!r}.")
        while True:
            start = reader.line_num + 1
            values = next(reader, None)
            if values is None:
                return
            if len(values) == len(header):
                yield start, dict(zip(header, values, strict=True))
            elif values:
                on_bad(start, f"{len(values)} fields, the header names {len(header)}")
    except csv.Error as error:
        raise InvalidData(f"{path}:{start}: not valid CSV: {error}.") from None


def _csv_lines(path: Path) -> Iterator[str]:
    for number, raw in _lines(path):
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise InvalidData(f"{path}:{number}: {_not_utf8(error)}.") from None


def _read_parquet(path: Path, on_bad: OnBad) -> Iterator[NumberedRow]:
    number = unpacked = 0
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(index) for index in range(file.metadata.num_row_groups)]
            _check_unpacked(path, sum(group.total_byte_size for group in groups))
            for batch in file.iter_batches(batch_size=64):  # small: a dictionary may repeat one long text in all rows
                unpacked += batch.nbytes
                _check_unpacked(path, unpacked)
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InvalidData(f"{path} is not a readable Parquet file (after row {number}): {error}.") from None


def _check_unpacked(path: Path, size: int) -> None:
    """Raise InvalidData for a file that would not fit into memory; a small file can unpack to a very large one."""
    if size > UNPACKED_BYTES:
        raise InvalidData(
            f"{path} has more than {UNPACKED_BYTES} bytes when unpacked; split it, or give it as JSON Lines."
        )


_READERS = {"jsonl": _read_jsonl, "json": _read_json, "csv": _read_csv, "parquet": _read_parquet}


def _decode_all(path: Path) -> str:
    data = path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise InvalidData(f"{path}:{line}: byte 0x{data[error.start]:02x} is not UTF-8.") from None


def _loads(text: str) -> JsonValue:
    value: JsonValue = json.loads(text, parse_constant=_refuse_constant)
    return value


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


def _skip_space(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"byte 0x{error.object[error.start]:02x} at position {error.start + 1} of the line is not UTF-8"


def _kind(value: object) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def column_names(rows: Iterable[NumberedRow]) -> list[str]:
    """Return the column names in the order in which they first occur."""
    return list(dict.fromkeys(name for _, row in rows for name in row))
