"""Reads data sets as canonical records, one after the other, with a report. No row is dropped without line and reason.

    reading = open_pairs(DataFiles.of(Path("preferences.jsonl")))
    for pair in reading: ...
    reading.report()

A reading holds no records: it may be gone through more than once, and reads the files each time.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Generic, TypeVar

from quatrain.data.files import FILE_FORMATS, DataFiles, read_files
from quatrain.data.formats import PAIRS_KIND, PROMPTS_KIND, SFT_KIND, Kind, Mapping, detect, detect_pairs
from quatrain.data.formats.conversion import Conversion
from quatrain.data.observations import Observations
from quatrain.data.records import Drop, NumberedRow, PairRecord, PromptRecord, Record, Row, SftRecord
from quatrain.data.report import Report
from quatrain.data.tally import Tally
from quatrain.errors import InvalidData

R = TypeVar("R", bound=Record)
Detect = Callable[[Sequence[Row], Kind[R], Mapping], tuple[Conversion[R], tuple[str, ...]]]
Loaded = tuple[list[R], Report]
_DETECT_ROWS = 200


class Reading(Generic[R]):
    """A data set's records. Opening one reads its first rows and chooses the format.

    Raises InvalidData: unreadable, empty, wrong columns; at the end of a pass, no usable row.
    """

    def __init__(self, files: DataFiles, said: Mapping, kind: Kind[R], choose: Detect[R]) -> None:
        self._files = files
        self._said = said
        self._kind = kind
        self._observations = Observations()
        self._tally = Tally()
        drops: list[Drop] = []
        first = [row for _, row in islice(self._rows(drops), _DETECT_ROWS)]
        if not first:
            raise self._nothing_kept(drops)
        try:
            self._conversion, self._notes = choose(first, kind, said)
        except InvalidData as error:
            raise InvalidData(f"{files.name}: {error.message}") from None
        self._columns = tuple(dict.fromkeys(name for row in first for name in row))

    @property
    def format(self) -> str:
        """Return the name of the format."""
        return self._conversion.name

    def __iter__(self) -> Iterator[R]:
        """Yield the records in the order of the files. Raises InvalidData."""
        observations, tally = Observations(), Tally()
        self._observations, self._tally = observations, tally
        unread: list[Drop] = []
        rows = self._of_format(self._rows(unread), observations)
        for item in self._conversion.records(rows, tally):
            _move(unread, observations)
            if isinstance(item, Drop):
                observations.drop(item)
            else:
                observations.see(item)
                yield item
        _move(unread, observations)
        if not observations.kept:
            raise self._nothing_kept(observations.drops)

    def go_through(self) -> None:
        """Make a pass for what is seen on it alone. Raises InvalidData."""
        for _ in self:
            pass

    def _of_format(self, rows: Iterable[NumberedRow], observations: Observations) -> Iterator[NumberedRow]:
        """Yield the rows but for those that have another format, which are dropped by the right name."""
        chosen, formats = self._conversion, self._kind.formats
        for line, row in rows:
            observations.rows += 1
            own = chosen if chosen.fits(row) else next((each for each in formats if each.fits(row)), None)
            if own is None or own.convert is chosen.convert:
                yield line, row
            else:
                reason = f"the row has the format {own.name}, and the file is read as {chosen.name}"
                observations.drop(Drop(line, reason))

    @property
    def seen(self) -> Observations:
        """Return the counts of the last pass."""
        return self._observations

    def report(self) -> Report:
        """Return what the last pass has seen."""
        seen = self._observations
        return Report(
            format=self.format,
            rows=seen.rows,
            kept=seen.kept,
            dropped=tuple(sorted(seen.drops, key=lambda drop: drop.line)),
            columns=self._columns,
            duplicates=seen.duplicates,
            warnings=(*self._files.notes, *self._notes, *self._tally.warnings(), *seen.warnings()),
            dropped_count=seen.dropped,
            is_bare_text=seen.texts == seen.kept,
        )

    def _rows(self, drops: list[Drop]) -> Iterator[NumberedRow]:
        return read_files(self._files, self._said.columns, drops)

    def _nothing_kept(self, drops: Sequence[Drop]) -> InvalidData:
        if not drops:
            return InvalidData(f"The data file {self._files.name} has no rows.")
        shown = "".join(f"\n  {self._files.place(drop.line)}: {drop.reason}" for drop in drops[:5])
        return InvalidData(f"None of the {len(drops)} rows of {self._files.name} can be used:{shown}")


def open_sft(files: DataFiles, said: Mapping | None = None) -> Reading[SftRecord]:
    """Open prompt and completion rows. Raises InvalidData."""
    return Reading(files, said or Mapping(), SFT_KIND, detect)


def open_pairs(files: DataFiles, said: Mapping | None = None) -> Reading[PairRecord]:
    """Open preference pairs. Raises InvalidData."""
    return Reading(files, said or Mapping(), PAIRS_KIND, detect_pairs)


def open_prompts(files: DataFiles, said: Mapping | None = None) -> Reading[PromptRecord]:
    """Open prompts with extra columns. Raises InvalidData."""
    return Reading(files, said or Mapping(), PROMPTS_KIND, detect)


def load_sft(path: Path, format: str | None = None, columns: dict[str, str] | None = None) -> Loaded[SftRecord]:
    """Return all prompt and completion rows of a file, and the report. Raises InvalidData."""
    return _load(open_sft, *asked(DataFiles.of(path), format, columns or {}))


def load_pairs(
    path: Path, format: str | None = None, columns: dict[str, str] | None = None, label_rule: str | None = None
) -> Loaded[PairRecord]:
    """Return all preference pairs of a file, and the report. Raises InvalidData."""
    return _load(open_pairs, *asked(DataFiles.of(path), format, columns or {}, label_rule))


def load_prompts(path: Path, format: str | None = None, columns: dict[str, str] | None = None) -> Loaded[PromptRecord]:
    """Return all prompts of a file, and the report. Raises InvalidData."""
    return _load(open_prompts, *asked(DataFiles.of(path), format, columns or {}))


def _load(opened: Callable[[DataFiles, Mapping], Reading[R]], files: DataFiles, said: Mapping) -> Loaded[R]:
    reading = opened(files, said)
    records = list(reading)
    return records, reading.report()


def asked(
    files: DataFiles, format: str | None, columns: dict[str, str], label_rule: str | None = None
) -> tuple[DataFiles, Mapping]:
    """Return the files and what a person said of them; `format` names a format of files or a public set."""
    if format in FILE_FORMATS:
        return files.with_format(format), Mapping(None, columns, label_rule)
    # What is neither JSON nor Parquet can only be CSV where people name the set.
    return files.with_format("csv") if format else files, Mapping(format, columns, label_rule)


def _move(drops: list[Drop], observations: Observations) -> None:
    """Count the rows that could not be read."""
    for drop in drops:
        observations.rows += 1
        observations.drop(drop)
    drops.clear()
