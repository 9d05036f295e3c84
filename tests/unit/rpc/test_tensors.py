"""Ragged rows there and back, and rows that lie."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quatrain.errors import InvalidInput
from quatrain.rpc.tensors import from_ragged_floats, from_ragged_ints, to_ragged_floats, to_ragged_ints
from quatrain.v1.common_pb2 import RaggedInts

INT32 = st.integers(-(2**31), 2**31 - 1)


@given(st.lists(st.lists(INT32, max_size=5), max_size=5))
def test_ints_come_back(rows: list[list[int]]) -> None:
    found = from_ragged_ints(to_ragged_ints(rows))

    assert [row.tolist() for row in found] == rows
    assert all(row.dtype == np.int32 and row.flags.writeable for row in found)


@given(st.lists(st.lists(st.floats(width=32, allow_nan=True), max_size=5), max_size=5))
def test_floats_come_back_bit_for_bit(rows: list[list[float]]) -> None:
    found = from_ragged_floats(to_ragged_floats(rows))

    assert [row.tobytes() for row in found] == [np.asarray(row, np.float32).tobytes() for row in rows]


def test_the_layout_is_little_endian_values_and_offsets() -> None:
    message = to_ragged_ints([[1, 2], [], [3]])

    assert message.values == bytes([1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0])
    assert list(message.offsets) == [0, 2, 2, 3]


@pytest.mark.parametrize("rows", [[[2**31]], [[-(2**31) - 1]], [np.zeros((2, 2), np.int64)]])
def test_what_is_no_row_of_int32_is_refused(rows: list[list[int]]) -> None:
    with pytest.raises(InvalidInput, match="row 0"):
        to_ragged_ints(rows)


def test_floats_where_ids_belong_are_refused() -> None:
    with pytest.raises(InvalidInput, match="row 1 holds float64"):
        to_ragged_ints([np.array([1, 2]), np.array([1.5])])


@pytest.mark.parametrize(
    ("values", "offsets", "message"),
    [
        (b"", [], "begin with 0"),
        (bytes(4), [1, 1], "begin with 0"),
        (bytes(8), [0, 2, 1, 2], "must not fall"),
        (bytes(8), [0, 1], "end at 1, but there are 2"),
        (bytes(4), [0, 2], "end at 2, but there are 1"),
        (bytes(5), [0, 1], "no whole number"),
    ],
)
def test_offsets_that_lie_are_refused(values: bytes, offsets: list[int], message: str) -> None:
    with pytest.raises(InvalidInput, match=rf"prompt_ids\..*{message}"):
        from_ragged_ints(RaggedInts(values=values, offsets=offsets), "prompt_ids")
