"""What a view keeps of every step, small: a job of ten thousand steps must not fill the memory of who looks at it."""

import json
import math
from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from typing import Any, overload

from quatrain.digests import canonical_json

# An object or model as an event names it, for example {"key": ..., "sha256": ..., "size": ...}.
Ref = dict[str, Any]
# Metrics of one step: {"step": int, "attempt": int, "<metric>": number or None}.
MetricRow = dict[str, Any]

# Events hold finite numbers and null only, so two others are free to mean something.
_NULL, _ABSENT = math.nan, math.inf


class MetricRows(Sequence[MetricRow]):
    """Rows in the order of steps, kept by column. What indexing gives is a copy; `merge` is the only way to change it.

    One thread may merge while others read: a row is seen once all of it is there.
    """

    def __init__(self) -> None:
        self._steps = array("q")
        self._attempts = array("q")
        self._columns: dict[str, array[float]] = {}

    def __len__(self) -> int:
        return len(self._steps)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MetricRows) and list(self) == list(other)

    __hash__ = None  # type: ignore[assignment]

    @overload
    def __getitem__(self, index: int) -> MetricRow: ...

    @overload
    def __getitem__(self, index: slice) -> list[MetricRow]: ...

    def __getitem__(self, index: int | slice) -> MetricRow | list[MetricRow]:
        if isinstance(index, slice):
            return [self._row(place) for place in range(*index.indices(len(self)))]
        return self._row(range(len(self))[index])

    def merge(self, step: int, attempt: int, values: Mapping[str, float | None]) -> None:
        """Adds values to the row of a step, which is made in its place if it is not there. The higher attempt stays."""
        place = len(self)
        while place > 0 and self._steps[place - 1] > step:
            place -= 1
        if place > 0 and self._steps[place - 1] == step:
            self._set(place - 1, values)
            self._attempts[place - 1] = max(attempt, self._attempts[place - 1])
            return
        for column in self._columns.values():
            column.insert(place, _ABSENT)
        self._attempts.insert(place, attempt)
        self._set(place, values)
        self._steps.insert(place, step)

    def between(self, first: int, last: int, names: Sequence[str] = ()) -> Iterator[MetricRow]:
        """Rows of the steps `first` to `last`; with `names` those values only, None for what a row lacks."""
        for place in range(bisect_left(self._steps, first), bisect_right(self._steps, last)):
            yield self._row(place, names) if names else self._row(place)

    def _set(self, place: int, values: Mapping[str, float | None]) -> None:
        for name, value in values.items():
            if name not in self._columns:
                self._columns[name] = array("d", [_ABSENT]) * len(self._attempts)
            self._columns[name][place] = _NULL if value is None else value

    def _row(self, place: int, names: Sequence[str] = ()) -> MetricRow:
        row: MetricRow = {"step": self._steps[place], "attempt": self._attempts[place], **dict.fromkeys(names)}
        for name in names or list(self._columns):
            column = self._columns.get(name)
            value = _ABSENT if column is None else column[place]
            if value != _ABSENT:
                row[name] = None if math.isnan(value) else value
        return row


class PackedRefs(MutableMapping[int, Ref]):
    """Step to what an event says of it, as JSON until somebody asks. What indexing gives is a copy."""

    def __init__(self) -> None:
        self._packed: dict[int, bytes] = {}

    def __getitem__(self, step: int) -> Ref:
        ref: Ref = json.loads(self._packed[step])
        return ref

    def __setitem__(self, step: int, ref: Ref) -> None:
        self._packed[step] = canonical_json(ref)

    def __delitem__(self, step: int) -> None:
        del self._packed[step]

    def __contains__(self, step: object) -> bool:
        return step in self._packed

    def __iter__(self) -> Iterator[int]:
        return iter(self._packed)

    def __len__(self) -> int:
        return len(self._packed)
