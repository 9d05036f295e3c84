"""Loads a data file into canonical records and a report. Bad rows are dropped with line and reason, never silently."""

from collections.abc import Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TypeVar

from quatrain.data import conversions
from quatrain.data.conversions import Conversion
from quatrain.data.fields import BadRow
from quatrain.data.records import Drop, PairRecord, PromptRecord, Record, SftRecord
from quatrain.data.report import Report, count_duplicates
from quatrain.data.rows import NumberedRow, column_names, read_rows
from quatrain.errors import InvalidData

R = TypeVar("R", bound=Record)
_DETECT_ROWS = 200


def load_sft(
    path: Path, format: str | None = None, columns: dict[str, str] | None = None
) -> tuple[list[SftRecord], Report]:
    """Return prompt and completion rows. Raises InvalidData: unreadable, empty, wrong columns, or no usable row."""
    return _load(path, format, columns, conversions.SFT, conversions.SFT_NEEDS)


def load_pairs(
    path: Path, format: str | None = None, columns: dict[str, str] | None = None
) -> tuple[list[PairRecord], Report]:
    """Return preference pairs. Raises InvalidData: unreadable, empty, wrong columns, or no usable row."""
    return _load(path, format, columns, conversions.PAIRS, conversions.PAIRS_NEED)


def load_prompts(
    path: Path, format: str | None = None, columns: dict[str, str] | None = None
) -> tuple[list[PromptRecord], Report]:
    """Return prompts with extra columns. Raises InvalidData: unreadable, empty, wrong columns, or no usable row."""
    return _load(path, format, columns, conversions.PROMPTS, conversions.PROMPTS_NEED)


def _load(
    path: Path,
    format: str | None,
    columns: dict[str, str] | None,
    formats: Sequence[Conversion[R]],
    needs: str,
) -> tuple[list[R], Report]:
    dropped: list[Drop] = []
    rows = read_rows(path, format, columns, dropped)
    first = list(islice(rows, _DETECT_ROWS))
    if not first:
        raise _nothing_kept(path, dropped)
    conversion = _detect(path, first, columns or {}, formats, needs)
    records: list[R] = []
    for line, row in chain(first, rows):  # never all rows at once: beside the records they would double the memory
        try:
            records.append(conversion.convert(row, line))
        except BadRow as bad:
            dropped.append(Drop(line, str(bad)))
    dropped.sort(key=lambda drop: drop.line)
    if not records:
        raise _nothing_kept(path, dropped)
    report = Report(
        format=conversion.name,
        rows=len(records) + len(dropped),
        kept=len(records),
        dropped=tuple(dropped),
        columns=tuple(column_names(first)),
        duplicates=count_duplicates(records),
    )
    return records, report


def _detect(
    path: Path, first: list[NumberedRow], columns: dict[str, str], formats: Sequence[Conversion[R]], needs: str
) -> Conversion[R]:
    """Return the first format, in their order, that fits any of the first rows."""
    for conversion in formats:
        if any(conversion.fits(row) for _, row in first):
            return conversion
    present = column_names(first)
    missing = [f"{canonical}: {source}" for canonical, source in columns.items() if canonical not in present]
    mapped = f" The mapping `columns` names what is not there: {', '.join(missing)}." if missing else ""
    raise InvalidData(
        f"{path} has the columns {', '.join(present)}; needed: {needs}.{mapped} "
        "Rename the columns or map them with `columns`."
    )


def _nothing_kept(path: Path, dropped: list[Drop]) -> InvalidData:
    if not dropped:
        return InvalidData(f"The data file {path} has no rows.")
    shown = "".join(f"\n  line {drop.line}: {drop.reason}" for drop in dropped[:5])
    return InvalidData(f"None of the {len(dropped)} rows of {path} can be used:{shown}")
