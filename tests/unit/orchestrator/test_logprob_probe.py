"""The condition that says that sampler and learner drift apart."""

from quatrain.joblog.compact import MetricRow
from quatrain.orchestrator.stages.logprob_probe import drift


def rows(*means: float | None) -> list[MetricRow]:
    return [MetricRow(step, 1, {"sampler/mismatch_mean": mean}) for step, mean in enumerate(means, 1)]


def test_it_is_said_after_three_steps_in_a_row() -> None:
    assert drift(rows(1.0, 1.0), "float32", None) is None
    assert drift(rows(1.0, 1e-6, 1.0, 1.0), "float32", None) is None
    text = drift(rows(1e-6, 1.0, 1.0, 0.25), "float32", None)
    assert text is not None
    assert "mean difference 2.50e-01 (at most 1e-04 in float32), step 4" in text


def test_it_stands_until_a_step_is_within_the_tolerance() -> None:
    assert drift(rows(1.0, 1.0, 1.0, 2.0), "float32", "said") == "said"
    assert drift(rows(1.0, 1.0, 1.0, None), "float32", "said") == "said"
    assert drift(rows(1.0, 1.0, 1.0, 1e-6), "float32", "said") is None


def test_the_tolerance_is_that_of_the_dtype() -> None:
    assert drift(rows(1e-2, 1e-2, 1e-2), "bfloat16", None) is None
    assert drift(rows(1e-2, 1e-2, 1e-2), "float32", None) is not None


def test_a_step_without_the_metric_says_nothing() -> None:
    assert drift([MetricRow(1, 1, {})], "float32", None) is None
