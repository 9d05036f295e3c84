"""What a format is: how its rows are recognised and how they become records."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from quatrain.data.fields import BadRow
from quatrain.data.records import Drop, NumberedRow, Record, Row
from quatrain.data.tally import Tally

R = TypeVar("R", bound=Record)


@dataclass(frozen=True)
class Conversion(Generic[R]):
    """A format of rows.

    name: as `format` and the report have it.
    fits: whether a row has this format, by the columns that are there.
    convert: the record of one row; raises BadRow.
    used: columns that are read, or known to say nothing about the record.
    doc: its columns in words, for docs/data.md.
    group: rows are joined while this key of neighbours stays the same, and `join` makes the records; None: row by row.
    known: a public data set, which `format` may name.
    """

    name: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row, int, Tally], R]
    used: frozenset[str]
    doc: str
    group: Callable[[Row], object] | None = None
    join: Callable[[list[NumberedRow], Tally], R] | None = None
    known: bool = False

    def records(self, rows: Iterable[NumberedRow], tally: Tally) -> Iterator[R | Drop]:
        """Yield a record or the reason why there is none, in the order of the rows, for a stream of any length."""
        if self.group is not None and self.join is not None:
            yield from _joined(rows, tally, self.group, self.join)
            return
        for line, row in rows:
            try:
                yield self.convert(row, line, tally)
            except BadRow as bad:
                yield Drop(line, str(bad))


def _joined(
    rows: Iterable[NumberedRow],
    tally: Tally,
    group: Callable[[Row], object],
    join: Callable[[list[NumberedRow], Tally], R],
) -> Iterator[R | Drop]:
    neighbours: list[NumberedRow] = []
    for numbered in rows:
        # Many rows with one prompt would otherwise be kept in memory all at once.
        if neighbours and (len(neighbours) == MAX_NEIGHBOURS or group(neighbours[0][1]) != group(numbered[1])):
            yield from _join(neighbours, tally, join)
            neighbours = []
        neighbours.append(numbered)
    if neighbours:
        yield from _join(neighbours, tally, join)


def _join(
    neighbours: list[NumberedRow], tally: Tally, join: Callable[[list[NumberedRow], Tally], R]
) -> Iterator[R | Drop]:
    """Yield the record of the rows, and a drop for each of them when there is none."""
    try:
        yield join(neighbours, tally)
    except BadRow as bad:
        yield from (Drop(line, str(bad)) for line, _ in neighbours)


MAX_NEIGHBOURS = 64


def has(row: Row, *columns: str) -> bool:
    """Return whether the row has all these columns."""
    return all(column in row for column in columns)


def is_list(row: Row, column: str) -> bool:
    """Return whether the column holds a list."""
    return isinstance(row.get(column), list)


def is_text(row: Row, column: str) -> bool:
    """Return whether the column holds a text."""
    return isinstance(row.get(column), str)
