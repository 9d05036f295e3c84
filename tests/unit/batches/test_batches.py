import io
from dataclasses import fields, replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from quatrain.batches import BatchRow, TokenRow, read_batch, read_tokens, write_batch, write_tokens
from quatrain.batches.sealed import SCHEMA
from quatrain.errors import Corrupt

ROLLOUT = BatchRow(
    rollout_id="r1",
    prompt_index=7,
    sample_index=0,
    seed=2**64 - 1,
    policy_version=3,
    policy_digest="ab",
    status="rollout",
    prompt_ids=np.array([1, 2, 3], dtype=np.int32),
    completion_ids=np.array([4, 5], dtype=np.int32),
    logprobs=np.array([-0.1, -0.2], dtype=np.float32),
    ref_logprobs=np.array([-0.3, -0.4], dtype=np.float32),
    finish_reason="stop",
    score=1.25,
    gold=-2.0,
    terms='{"polite":1.25}',
    prompt="Where is my parcel?",
    completion="Härzlich, 'bald'.\n",
)
REFUSED = BatchRow("r2", 8, 1, 5, 3, "ab", "refused", reason="reward is NaN")


def assert_same(left: BatchRow, right: BatchRow) -> None:
    for item in fields(BatchRow):
        a, b = getattr(left, item.name), getattr(right, item.name)
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
        else:
            assert a == b


def test_the_schema_names_the_fields_of_a_row_in_their_order() -> None:
    assert SCHEMA.names == [item.name for item in fields(BatchRow)]


def test_rows_come_back_as_they_were_written() -> None:
    rows = read_batch(write_batch([ROLLOUT, REFUSED]))

    assert len(rows) == 2
    assert_same(rows[0], ROLLOUT)
    assert_same(rows[1], REFUSED)


def test_an_empty_batch_is_a_batch() -> None:
    assert read_batch(write_batch([])) == []


def test_equal_rows_give_equal_bytes() -> None:
    assert write_batch([ROLLOUT, REFUSED]) == write_batch([replace(ROLLOUT), replace(REFUSED)])
    assert write_batch([ROLLOUT]) != write_batch([replace(ROLLOUT, score=1.5)])


def test_a_batch_opens_as_ordinary_parquet() -> None:
    table = pq.read_table(io.BytesIO(write_batch([ROLLOUT])))

    assert table.column("completion_ids").to_pylist() == [[4, 5]]
    assert not table.schema.metadata


def test_a_batch_of_several_row_groups_keeps_every_row() -> None:
    rows = [replace(ROLLOUT, sample_index=i, completion_ids=np.arange(i % 5, dtype=np.int32)) for i in range(20000)]

    back = read_batch(write_batch(rows))

    assert [row.sample_index for row in back] == list(range(20000))
    assert all(len(row.completion_ids) == i % 5 for i, row in enumerate(back))


@pytest.mark.parametrize("cut", [0, 4, 200])
def test_cut_bytes_are_corrupt(cut: int) -> None:
    with pytest.raises(Corrupt, match="Parquet"):
        read_batch(write_batch([ROLLOUT])[:cut])


def test_another_file_is_corrupt() -> None:
    tokens = write_tokens([])

    with pytest.raises(Corrupt, match="lacks the columns"):
        read_batch(tokens)


def test_token_rows_come_back_as_they_were_written() -> None:
    numbers = [np.arange(3, dtype=np.float32) + i for i in range(5)]
    row = TokenRow("r1", *numbers)

    [back] = read_tokens(write_tokens([row]))

    assert back.rollout_id == "r1"
    np.testing.assert_array_equal(back.returns, numbers[3])
    np.testing.assert_array_equal(back.entropy, numbers[4])
    assert write_tokens([row]) == write_tokens([back])
