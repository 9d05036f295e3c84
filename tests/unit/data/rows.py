"""Rows of data files, read as the formats see them."""

from collections.abc import Iterator
from pathlib import Path

from quatrain.data import DataFiles, Drop, read_files
from quatrain.data.records import NumberedRow


def read_rows(
    path: Path, columns: dict[str, str] | None = None, dropped: list[Drop] | None = None
) -> Iterator[NumberedRow]:
    return read_files(DataFiles.of(path), columns or {}, dropped)
