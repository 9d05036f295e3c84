"""What a view keeps of every step: small, and the same as the events said."""

import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quatrain.joblog.compact import MetricRows, PackedRefs

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)
MERGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.dictionaries(NAMES, VALUES)), max_size=30)


def plain(merges: list[tuple[int, int, dict[str, Any]]]) -> list[dict[str, Any]]:
    """What the rows say, the simple way."""
    rows: dict[int, dict[str, Any]] = {}
    for step, attempt, values in merges:
        row = rows.setdefault(step, {"step": step, "attempt": attempt})
        row |= {**values, "attempt": max(attempt, row["attempt"])}
    return [rows[step] for step in sorted(rows)]


@given(MERGES)
def test_rows_are_what_was_merged(merges: list[tuple[int, int, dict[str, Any]]]) -> None:
    rows, expected = MetricRows(), plain(merges)
    for step, attempt, values in merges:
        rows.merge(step, attempt, values)

    assert list(rows) == expected
    assert rows[-2:] == expected[-2:]
    if expected:
        assert rows[-1] == expected[-1]
    named = [{"step": r["step"], "attempt": r["attempt"], "b": r.get("b"), "z": None} for r in expected]
    assert list(rows.between(3, 6, ("b", "z"))) == [row for row in named if 3 <= row["step"] <= 6]
    assert list(rows.between(-1, 2**62)) == expected


def test_there_is_no_row_beyond_the_last() -> None:
    rows = MetricRows()
    rows.merge(1, 1, {"loss": 0.5})

    for place in (1, -2):
        with pytest.raises(IndexError):
            rows[place]


def test_a_reference_comes_back_as_it_was_and_changes_nothing() -> None:
    refs = PackedRefs()
    refs[3] = {"key": "jobs/é", "sha256": "ab", "size": 5}
    refs[3]["key"] = "other"

    assert dict(refs) == {3: {"key": "jobs/é", "sha256": "ab", "size": 5}}
    assert 3 in refs
    assert 4 not in refs
    assert refs.get(4) is None


def test_a_step_takes_a_kilobyte() -> None:
    rows, sealed, tokens, steps = MetricRows(), PackedRefs(), PackedRefs(), 2000
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for step in range(1, steps + 1):
        rows.merge(step, 1, {f"time/metric_{number}": step / (number + 1) for number in range(40)})
        ref = {"key": f"jobs/a-job/ppo/batches/{step}-1-0123abcd.parquet", "sha256": f"{step:064}", "size": 12345}
        sealed[step] = {"stage": "ppo", "step": step, "policy_version": step - 1, "rollouts": 64, **ref}
        tokens[step] = ref
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (after - before) / steps < 1200
