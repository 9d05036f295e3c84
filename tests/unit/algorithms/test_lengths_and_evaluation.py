import functools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quatrain.algorithms.evaluation import evaluation_metrics
from quatrain.algorithms.lengths import LengthBaseline
from quatrain.algorithms.statistics import correlation, percentile, standard_deviation, standard_error

LENGTHS = list(range(1, 11)) * 4


def baseline(slope: float) -> LengthBaseline:
    """Ten equal steps whose score rises with length."""
    return functools.reduce(
        lambda state, _: state.add(LENGTHS, [slope * length for length in LENGTHS]), range(10), LengthBaseline()
    )


def test_longer_and_otherwise_equal_is_explained_by_length() -> None:
    lengths = [length for length in LENGTHS if length > 5]

    assert baseline(1.0).explained(lengths, [float(length) for length in lengths]) == pytest.approx(1.0)


def test_better_at_equal_length_is_not() -> None:
    assert baseline(0.1).explained(LENGTHS, [0.1 * length + 2.0 for length in LENGTHS]) == pytest.approx(0.0)


def test_half_and_half() -> None:
    lengths = [length for length in LENGTHS if length > 5]  # moves the mean score from 5.5 to 8

    assert baseline(1.0).explained(lengths, [length + 2.5 for length in lengths]) == pytest.approx(0.5)


def test_no_gain_no_answer() -> None:
    state = baseline(1.0)

    assert state.explained(LENGTHS, [float(length) for length in LENGTHS]) is None
    assert state.explained(LENGTHS, [length - 3.0 for length in LENGTHS]) is None
    assert state.explained([], []) is None


def test_baseline_is_ten_steps_and_then_stays() -> None:
    nine = functools.reduce(lambda state, _: state.add([1], [0.0]), range(9), LengthBaseline())

    assert nine.explained([1], [1.0]) is None
    ten = nine.add([1], [0.0])
    assert ten.explained([1], [1.0]) == 0.0
    assert ten.add([7], [1.0]) is ten


@given(st.lists(st.integers(1, 6), min_size=1, max_size=30), st.lists(st.integers(0, 50), min_size=1, max_size=30))
def test_every_length_falls_in_a_decile_that_the_baseline_knows(first: list[int], later: list[int]) -> None:
    state = LengthBaseline(10, tuple(first), tuple(0.0 for _ in first))

    assert state.explained(later, [1.0] * len(later)) == pytest.approx(0.0)


def test_lengths_and_scores_must_fit() -> None:
    with pytest.raises(ValueError, match="2 lengths"):
        LengthBaseline().add([1, 2], [0.0])


def test_evaluation_is_paired_by_prompt() -> None:
    metrics = evaluation_metrics([1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [10.0, 21.0, 30.0], [9.0, 20.0, 30.0])

    assert metrics["eval/score_mean"] == 2.0
    assert metrics["eval/gold_mean"] == pytest.approx(61 / 3)
    assert metrics["eval/gold_se"] == pytest.approx(1 / 3)
    assert metrics["eval/win_rate"] == pytest.approx(2.5 / 3)


def test_evaluation_without_gold_compares_scores() -> None:
    metrics = evaluation_metrics([1.0, 2.0], [0.0, 3.0])

    assert metrics == {"eval/score_mean": 1.5, "eval/gold_mean": None, "eval/gold_se": None, "eval/win_rate": 0.5}
    assert evaluation_metrics([1.0])["eval/win_rate"] is None


def test_statistics_are_unknown_where_undefined() -> None:
    assert correlation([1.0, 1.0], [1.0, 2.0]) is None
    assert correlation([0.1] * 3, [1.0, 2.0, 4.0]) is None
    assert correlation([1.0], [1.0]) is None
    assert correlation([1.0, 2.0, 4.0], [3.0, 2.0, 0.0]) == pytest.approx(-1.0)
    assert standard_deviation([1.0]) is None
    assert standard_error([1.0, 3.0]) == pytest.approx(1.0)
    assert percentile([], 0.5) is None
    assert percentile([3.0, 1.0, 2.0], 0.5) == 2.0
    with pytest.raises(ValueError, match="correlated"):
        correlation([1.0], [])
