"""What a view keeps of every step: small, and the same as the events said."""

import random
import struct
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quatrain.joblog.compact import MetricRow, MetricRows, PackedSteps, StepSet
from quatrain.json_values import JsonObject

NAMES = st.sampled_from(["a", "b", "c"])
VALUES = st.none() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-1000, 1000)
MERGES = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3), st.dictionaries(NAMES, VALUES)), max_size=30)


def plain(merges: list[tuple[int, int, dict[str, Any]]]) -> list[MetricRow]:
    """What the rows say, the simple way."""
    rows: dict[int, MetricRow] = {}
    for step, attempt, values in merges:
        row = rows.get(step, MetricRow(step, attempt, {}))
        rows[step] = MetricRow(step, max(attempt, row.attempt), {**row.values, **values})
    return [rows[step] for step in sorted(rows)]


def as_json() -> PackedSteps[dict[str, Any]]:
    return PackedSteps(dict, dict)


@given(MERGES, st.sampled_from([1, 2, 5, 256]))
def test_rows_are_what_was_merged(merges: list[tuple[int, int, dict[str, Any]]], block: int) -> None:
    rows, expected = MetricRows(block), plain(merges)
    for step, attempt, values in merges:
        rows.merge(step, attempt, values)

    assert list(rows) == expected
    assert rows[-2:] == expected[-2:]
    if expected:
        assert rows[-1] == expected[-1]
    named = [MetricRow(row.step, row.attempt, {"b": row.values.get("b"), "z": None}) for row in expected]
    assert list(rows.between(3, 6, ("b", "z"))) == [row for row in named if 3 <= row.step <= 6]
    assert list(rows.between(-1, 2**62)) == expected
    assert list(rows.newest_only()) == expected[-1:]


def test_there_is_no_row_beyond_the_last() -> None:
    rows = MetricRows()
    rows.merge(1, 1, {"loss": 0.5})

    for place in (1, -2):
        with pytest.raises(IndexError):
            rows[place]


def test_a_reference_comes_back_as_it_was_and_changes_nothing() -> None:
    refs = as_json()
    refs[3] = {"key": "jobs/é", "sha256": "ab", "size": 5}
    refs[3]["key"] = "other"

    assert dict(refs) == {3: {"key": "jobs/é", "sha256": "ab", "size": 5}}
    assert 3 in refs
    assert 4 not in refs
    assert refs.get(4) is None


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), max_size=40), st.sampled_from([1, 2, 5]))
def test_references_are_the_same_in_blocks(sets: list[tuple[int, int]], block: int) -> None:
    refs, expected = PackedSteps[JsonObject](dict, dict, block), dict[int, JsonObject]()
    for step, size in sets:
        refs[step] = expected[step] = {"size": size}

    assert dict(refs) == expected
    assert (len(refs), sorted(refs)) == (len(expected), sorted(expected))
    assert [refs.get(step) for step in range(22)] == [expected.get(step) for step in range(22)]
    assert [step in refs for step in range(22)] == [step in expected for step in range(22)]


@given(st.lists(st.integers(0, 30)))
def test_a_set_of_steps_is_a_set(steps: list[int]) -> None:
    found = StepSet(steps)
    found.copy().add(31)

    assert set(found) == set(steps)
    assert (list(found), len(found)) == (sorted(set(steps)), len(set(steps)))
    assert [step in found for step in range(-1, 32)] == [step in set(steps) for step in range(-1, 32)]


@pytest.mark.parametrize(("digits", "most"), [(17, 550), (7, 400)])
def test_a_step_of_forty_metrics_takes_half_a_kilobyte(digits: int, most: int) -> None:
    """Less where metrics were computed in float32."""
    rows, sealed, tokens, released, steps = MetricRows(), as_json(), as_json(), StepSet(), 4000
    draw = random.Random(1)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for step in range(1, steps + 1):
        values = (draw.random() for _ in range(40))
        if digits == 7:
            values = (struct.unpack("f", struct.pack("f", value))[0] for value in values)
        rows.merge(step, 1, {f"time/metric_{number}": value for number, value in enumerate(values)})
        digest = draw.randbytes(32).hex()
        ref = {"key": f"jobs/a-job/ppo/batches/{step}-1-{digest[:8]}.parquet", "sha256": digest, "size": 12345}
        sealed[step] = {"stage": "ppo", "step": step, "policy_version": step - 1, "rollouts": 64, **ref}
        tokens[step] = ref
        released.add(step)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert (after - before) / steps < most
