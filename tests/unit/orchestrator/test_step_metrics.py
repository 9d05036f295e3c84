import math

from tests.unit.orchestrator.scenery import expected, made_of, make_plan

from quatrain.orchestrator.stages.step_metrics import collected_metrics, scale_warning
from quatrain.v1 import common_pb2


def test_logged_values_that_are_not_finite_stay_out_of_the_log() -> None:
    batch = expected(make_plan())
    values = [("good", 1.0), ("mixed", math.nan), ("bad", math.inf)]
    first = [common_pb2.NamedValue(name=name, value=value) for name, value in values]
    second = [common_pb2.NamedValue(name="mixed", value=3.0)]

    metrics = collected_metrics(
        [
            made_of(batch, batch.samples[0], 0, reward_metrics=first),
            made_of(batch, batch.samples[1], 1, reward_metrics=second),
        ]
    )

    logged = {name: value for name, value in metrics.items() if name.startswith("reward/logged/")}
    assert logged == {"reward/logged/good": 1.0, "reward/logged/mixed": 3.0}


def test_scores_of_a_size_that_slows_the_value_model_are_warned_of() -> None:
    assert scale_warning(1, 1.0) is None
    assert "set reward.scale to about 0.02" in (scale_warning(1, 50.0) or "")
    assert "all scores of step 7 are equal" in (scale_warning(7, 0.0) or "")
