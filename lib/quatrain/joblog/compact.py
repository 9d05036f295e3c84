"""Compact containers for what a view keeps of every step: a job of ten thousand steps must not fill the memory of a
process that shows it.

The newest steps are kept as they come, older ones compressed in blocks of the same number of steps.
"""

import json
import math
import zlib
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Generic, TypeVar, overload

from quatrain.digests import canonical_json
from quatrain.json_values import JsonObject

T = TypeVar("T")

# Events hold finite numbers and null only, so NaN and infinity are free to stand for null and for no value.
_NULL, _ABSENT = math.nan, math.inf
BLOCK = 256


@dataclass(frozen=True)
class MetricRow:
    """Metrics of one step by name (None: not defined for it), and the attempt that gave them last."""

    step: int
    attempt: int
    values: Mapping[str, float | None]


@dataclass(frozen=True)
class _Column:
    """Values of one metric. It is replaced, not changed, when blocks are made, because others may be reading it."""

    blocks: tuple[bytes, ...]
    newest: "array[float]"

    def values(self, start: int, stop: int, block: int) -> "array[float]":
        """Return the values of the rows from `start` to before `stop`."""
        packed = len(self.blocks) * block
        if start >= packed:
            return self.newest[start - packed : stop - packed]
        first, last = start // block, min(-(-stop // block), len(self.blocks))
        found = array("d")
        for each in self.blocks[first:last]:
            found.extend(_unpacked(each, block))
        found = found[start - first * block : stop - first * block]
        return found + self.newest[: stop - packed] if stop > packed else found


class MetricRows(Sequence[MetricRow]):
    """Rows in the order of steps, kept by column. Indexing returns copies; `merge` is the only way to change a row.

    One thread may merge while others read: a row is seen once all of it is there.
    """

    def __init__(self, block: int = BLOCK) -> None:
        self._block = block
        self._steps = array("q")
        self._attempts = array("q")
        self._columns: dict[str, _Column] = {}
        self._blocks = 0

    def __len__(self) -> int:
        return len(self._steps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MetricRows) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    def __iter__(self) -> Iterator[MetricRow]:
        return self._rows(0, len(self))

    @overload
    def __getitem__(self, index: int) -> MetricRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[MetricRow]: ...

    def __getitem__(self, index: int | slice) -> MetricRow | list[MetricRow]:
        if isinstance(index, slice):
            start, stop, stride = index.indices(len(self))
            return list(self._rows(start, stop))[::stride] if stride > 0 else list(self)[index]
        place = range(len(self))[index]
        return next(self._rows(place, place + 1))

    def merge(self, step: int, attempt: int, values: Mapping[str, float | None]) -> None:
        """Add values to the row of a step, which is inserted if it is missing. The higher attempt stays."""
        place = bisect_left(self._steps, step)
        known = place < len(self) and self._steps[place] == step
        if place < self._blocks * self._block:
            self._unpack()
        if known:
            self._set(place, values)
            self._attempts[place] = max(attempt, self._attempts[place])
        else:
            for column in self._columns.values():
                column.newest.insert(place - self._blocks * self._block, _ABSENT)
            self._attempts.insert(place, attempt)
            self._set(place, values)
            self._steps.insert(place, step)
        if len(self) >= (self._blocks + 2) * self._block:
            self._pack()

    def between(self, first: int, last: int, names: Sequence[str] = ()) -> Iterator[MetricRow]:
        """Return the rows of the steps `first` to `last`; with `names` only those values, None for what a row lacks."""
        return self._rows(bisect_left(self._steps, first), bisect_right(self._steps, last), names)

    def newest_only(self) -> "MetricRows":
        """Return rows that hold the last row only."""
        rows = MetricRows(self._block)
        if self:
            row = self[-1]
            rows.merge(row.step, row.attempt, row.values)
        return rows

    def _set(self, place: int, values: Mapping[str, float | None]) -> None:
        packed = self._blocks * self._block
        for name, value in values.items():
            if name not in self._columns:
                absent = (b"",) * self._blocks
                self._columns[name] = _Column(absent, array("d", [_ABSENT]) * (len(self._attempts) - packed))
            self._columns[name].newest[place - packed] = _NULL if value is None else value

    def _rows(self, start: int, stop: int, names: Sequence[str] = ()) -> Iterator[MetricRow]:
        """Yield the rows from `start` to before `stop`, unpacking one block's worth at a time."""
        for part in range(start, stop, self._block):
            end = min(part + self._block, stop)
            columns = {
                name: self._columns[name].values(part, end, self._block)
                for name in names or list(self._columns)
                if name in self._columns
            }
            for place in range(part, end):
                row: dict[str, float | None] = dict.fromkeys(names)
                for name, values in columns.items():
                    value = values[place - part]
                    if value != _ABSENT:
                        row[name] = None if math.isnan(value) else value
                yield MetricRow(self._steps[place], self._attempts[place], row)

    def _pack(self) -> None:
        """Compress the oldest rows that are in no block into one."""
        for name, column in self._columns.items():
            block = _packed(column.newest[: self._block])
            self._columns[name] = _Column((*column.blocks, block), column.newest[self._block :])
        self._blocks += 1

    def _unpack(self) -> None:
        """Unpack all blocks, to change an old row. This is rare; the rows are packed again as new ones come."""
        for name, column in self._columns.items():
            self._columns[name] = _Column((), column.values(0, len(self), self._block))
        self._blocks = 0


def _packed(values: "array[float]") -> bytes:
    """Compress the numbers, all first bytes first: signs and exponents are alike, and so are a float32's last bits."""
    if all(value == _ABSENT for value in values):
        return b""
    data = values.tobytes()
    return zlib.compress(b"".join(data[place::8] for place in range(8)))


def _unpacked(data: bytes, count: int) -> "array[float]":
    if not data:
        return array("d", [_ABSENT]) * count
    found = array("d")
    mixed = zlib.decompress(data)
    ordered = bytearray(len(mixed))
    for place in range(8):
        ordered[place::8] = mixed[place * count : (place + 1) * count]
    found.frombytes(ordered)
    return found


@dataclass(frozen=True)
class _StepBlock:
    """The compressed JSON of some steps, one line each."""

    steps: Sequence[int]
    lines: bytes


class PackedSteps(Mapping[int, T], Generic[T]):
    """A mapping of steps to what an event says of them, kept as JSON until it is read. Indexing returns copies.

    One thread may set while others read.
    """

    def __init__(
        self, to_json: Callable[[T], JsonObject], from_json: Callable[[JsonObject], T], block: int = BLOCK
    ) -> None:
        self._to_json = to_json
        self._from_json = from_json
        self._block = block
        # The pair is replaced as one, so that a reader finds each step in one of the two.
        self._kept: tuple[tuple[_StepBlock, ...], dict[int, bytes]] = ((), {})
        self._opened: tuple[_StepBlock | None, dict[int, bytes]] = (None, {})

    def __getitem__(self, step: int) -> T:
        blocks, newest = self._kept
        packed = newest.get(step)
        if packed is None:
            block = _block_of(blocks, step)
            if block is None:
                raise KeyError(step)
            packed = self._lines(block)[step]
        return self._from_json(json.loads(packed))

    def __setitem__(self, step: int, said: T) -> None:
        blocks, newest = self._kept
        if _block_of(blocks, step) is not None:  # This is rare; the steps are packed again as new ones come.
            older = {known: packed for block in blocks for known, packed in self._lines(block).items()}
            blocks, newest = (), older | newest
            self._kept = blocks, newest
        newest[step] = canonical_json(self._to_json(said))
        if len(newest) >= 2 * self._block:
            oldest = dict(list(newest.items())[: self._block])
            rest = {known: packed for known, packed in newest.items() if known not in oldest}
            self._kept = (*blocks, _step_block(oldest)), rest

    def __contains__(self, step: object) -> bool:
        blocks, newest = self._kept
        return step in newest or (isinstance(step, int) and _block_of(blocks, step) is not None)

    def __iter__(self) -> Iterator[int]:
        blocks, newest = self._kept
        for block in blocks:
            yield from block.steps
        yield from list(newest)

    def __len__(self) -> int:
        blocks, newest = self._kept
        return sum(len(block.steps) for block in blocks) + len(newest)

    def _lines(self, block: _StepBlock) -> dict[int, bytes]:
        """Return JSON by step. The last block stays unpacked, because its next step is most likely read next."""
        opened, lines = self._opened
        if opened is not block:
            lines = dict(zip(block.steps, zlib.decompress(block.lines).split(b"\n"), strict=True))
            self._opened = (block, lines)
        return lines


def _step_block(lines: Mapping[int, bytes]) -> _StepBlock:
    steps = list(lines)
    following = range(steps[0], steps[0] + len(steps))
    return _StepBlock(
        following if steps == list(following) else array("q", steps), zlib.compress(b"\n".join(lines.values()))
    )


def _block_of(blocks: Sequence[_StepBlock], step: int) -> _StepBlock | None:
    return next((block for block in blocks if step in block.steps), None)


class StepSet(Set[int]):
    """A set of steps, kept as runs of neighbours: most of a job's steps share a fate."""

    def __init__(self, steps: Iterable[int] = ()) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        for step in steps:
            self.add(step)

    def add(self, step: int) -> None:
        """Add a step."""
        place = bisect_right(self._starts, step)  # of the first run that begins after it
        if place > 0 and step < self._ends[place - 1]:
            return
        joins_last = place > 0 and self._ends[place - 1] == step
        joins_next = place < len(self._starts) and self._starts[place] == step + 1
        if joins_last and joins_next:
            self._ends[place - 1] = self._ends.pop(place)
            del self._starts[place]
        elif joins_last:
            self._ends[place - 1] += 1
        elif joins_next:
            self._starts[place] = step
        else:
            self._starts.insert(place, step)
            self._ends.insert(place, step + 1)

    def copy(self) -> "StepSet":
        """Return an independent set of the same steps."""
        steps = StepSet()
        steps._starts, steps._ends = self._starts.copy(), self._ends.copy()
        return steps

    def __contains__(self, step: object) -> bool:
        place = bisect_right(self._starts, step) if isinstance(step, int) else 0
        return place > 0 and step < self._ends[place - 1]  # type: ignore[operator]

    def __iter__(self) -> Iterator[int]:
        for start, end in zip(list(self._starts), list(self._ends), strict=False):
            yield from range(start, end)

    def __len__(self) -> int:
        return sum(self._ends) - sum(self._starts)
