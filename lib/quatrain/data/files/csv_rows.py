"""Rows of CSV files, as spreadsheets and pandas write them. Read as a stream; all values are texts."""

import csv
from collections.abc import Iterator
from typing import BinaryIO

from quatrain.data.files.json_rows import MAX_ROW, OnBad, OnNote
from quatrain.data.records import NumberedRow
from quatrain.errors import InvalidData

_SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}
_INDEX = ("", "Unnamed: 0")
"""Names under which pandas writes the number of a row."""


def read_csv(stream: BinaryIO, name: str, on_bad: OnBad, on_note: OnNote) -> Iterator[NumberedRow]:
    """Yield the rows with the line at which each begins. Raises InvalidData."""
    csv.field_size_limit(MAX_ROW)
    lines = _lines(stream, name)
    first = next(lines, "")
    separator = _separator(first)
    if separator != ",":
        on_note(f"the separator is {_SEPARATORS[separator]}")
    reader = csv.reader(_again(first, lines), strict=True, delimiter=separator)
    start = 1
    try:
        header = next(reader, [])
        used = _used(header, name, on_note)
        while True:
            start = reader.line_num + 1
            values = next(reader, None)
            if values is None:
                return
            if len(values) == len(header):
                yield start, {header[index]: values[index] for index in used}
            elif values:
                on_bad(start, f"{len(values)} fields, the header names {len(header)}")
    except csv.Error as error:
        raise InvalidData(f"{name}:{start}: not valid CSV: {error}.") from None


def _used(header: list[str], name: str, on_note: OnNote) -> list[int]:
    """Return the columns that are read: all but a row number that has no name of its own."""
    numbers = [index for index, column in enumerate(header[:1]) if column in _INDEX]
    used = [index for index in range(len(header)) if index not in numbers]
    names = [header[index] for index in used]
    if not used or not all(names) or len(set(names)) != len(names):
        raise InvalidData(f"{name}:1: the first line must name the columns, each once; it has {header!r:.200}.")
    if numbers:
        on_note("the first column has no name and is left out, since pandas writes row numbers there")
    return used


def _separator(header: str) -> str:
    """Return the separator that makes the most columns of the header; a comma where none does."""
    counts = {mark: _count_columns(header, mark) for mark in _SEPARATORS}
    return max(counts, key=lambda mark: counts[mark])


def _count_columns(header: str, separator: str) -> int:
    try:
        return len(next(csv.reader([header.rstrip("\r\n")], delimiter=separator), []))
    except csv.Error:
        return 0


def _lines(stream: BinaryIO, name: str) -> Iterator[str]:
    number = 0
    # Line ends stay as they are inside of quoted cells.
    while raw := stream.readline(MAX_ROW):
        number += 1
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            yield raw.decode("utf-8")
        except UnicodeDecodeError as error:
            byte = raw[error.start]
            raise InvalidData(
                f"{name}:{number}: byte 0x{byte:02x} at position {error.start + 1} of the line is not UTF-8. "
                "Spreadsheets often write Windows-1252: convert it with `iconv -f CP1252 -t UTF-8`, or export UTF-8."
            ) from None


def _again(first: str, rest: Iterator[str]) -> Iterator[str]:
    yield first
    yield from rest
