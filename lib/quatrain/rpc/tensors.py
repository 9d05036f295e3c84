"""Ragged rows between numpy and the wire: values one after the other and row boundaries, never padding."""

import itertools
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from quatrain.errors import InvalidInput
from quatrain.v1 import common_pb2

Ints = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float32]

_LOWEST, _HIGHEST = -(2**31), 2**31 - 1


def to_ragged_ints(rows: Sequence[Sequence[int] | npt.NDArray[Any]]) -> common_pb2.RaggedInts:
    """Return rows of ints, each [length], as a message. Raises InvalidInput for what is not an int32."""
    arrays = [np.asarray(row) if len(row) else np.zeros(0, np.int64) for row in rows]
    for number, array in enumerate(arrays):
        if array.ndim != 1:
            raise InvalidInput(f"row {number} has {array.ndim} dimensions; rows are flat lists of ints")
        if array.dtype.kind not in "iu":
            raise InvalidInput(f"row {number} holds {array.dtype}, not ints of at most 64 bits")
        if array.size and (array.min() < _LOWEST or array.max() > _HIGHEST):
            raise InvalidInput(f"row {number} holds a value outside the range of int32")
    values = b"".join(array.astype("<i4").tobytes() for array in arrays)
    return common_pb2.RaggedInts(values=values, offsets=_offsets([len(a) for a in arrays]))


def to_ragged_floats(rows: Sequence[Sequence[float] | npt.NDArray[Any]]) -> common_pb2.RaggedFloats:
    """Return rows of floats, each [length], as a message in float32. NaN and infinity pass."""
    arrays = [np.asarray(row, dtype="<f4") for row in rows]
    for number, array in enumerate(arrays):
        if array.ndim != 1:
            raise InvalidInput(f"row {number} has {array.ndim} dimensions; rows are flat lists of floats")
    values = b"".join(array.tobytes() for array in arrays)
    return common_pb2.RaggedFloats(values=values, offsets=_offsets([len(a) for a in arrays]))


def from_ragged_ints(message: common_pb2.RaggedInts, field: str = "rows") -> list[Ints]:
    """Return the rows, int32 [length] each, writable. Raises InvalidInput, naming `field`, for wrong offsets."""
    values = np.frombuffer(_checked(message.values, message.offsets, field), dtype="<i4").astype(np.int32)
    return _split(values, message.offsets)


def from_ragged_floats(message: common_pb2.RaggedFloats, field: str = "rows") -> list[Floats]:
    """Return the rows, float32 [length] each, writable. Raises InvalidInput, naming `field`, for wrong offsets."""
    values = np.frombuffer(_checked(message.values, message.offsets, field), dtype="<f4").astype(np.float32)
    return _split(values, message.offsets)


def _offsets(lengths: Sequence[int]) -> list[int]:
    return [0, *np.cumsum(lengths, dtype=np.int64).tolist()]


def _split(values: npt.NDArray[Any], offsets: Sequence[int]) -> list[npt.NDArray[Any]]:
    return [values[start:end] for start, end in itertools.pairwise(offsets)]


def _checked(values: bytes, offsets: Sequence[int], field: str) -> bytes:
    """Return the bytes, if `offsets` cut them into whole rows of four-byte elements."""
    bounds = np.asarray(offsets, dtype=np.int64)
    if len(values) % 4:
        raise InvalidInput(f"{field}.values has {len(values)} bytes, which is no whole number of 4-byte elements")
    if bounds.size == 0 or bounds[0] != 0:
        raise InvalidInput(f"{field}.offsets must begin with 0 and hold one more entry than there are rows")
    if (np.diff(bounds) < 0).any():
        raise InvalidInput(f"{field}.offsets must not fall")
    if bounds[-1] != len(values) // 4:
        raise InvalidInput(f"{field}.offsets end at {bounds[-1]}, but there are {len(values) // 4} elements")
    return values
