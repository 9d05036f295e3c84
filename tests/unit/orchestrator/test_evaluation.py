import math

import numpy as np
import pytest

from quatrain.batches import BatchRow
from quatrain.orchestrator.stages.evaluation import eval_metrics


def row(score: float | None, gold: float | None) -> BatchRow:
    ids = np.array([1], dtype=np.int32)
    numbers = np.array([-1.0], dtype=np.float32)
    return BatchRow(
        rollout_id="r",
        prompt_index=0,
        sample_index=0,
        seed=1,
        policy_version=0,
        policy_digest="d",
        status="rollout",
        reason="",
        prompt_ids=ids,
        completion_ids=ids,
        logprobs=numbers,
        ref_logprobs=numbers,
        finish_reason="stop",
        score=score,
        gold=gold,
        terms="{}",
        logged="",
        prompt="p",
        completion="c",
        extra="{}",
    )


def test_gold_is_paired_by_prompt_with_the_first_evaluation() -> None:
    first = [row(0.0, 1.0), row(0.0, 5.0), row(0.0, 2.0)]
    now = [row(1.0, 2.0), row(2.0, 5.0), row(3.0, 5.0)]

    metrics = eval_metrics(now, first)

    assert metrics["eval/score_mean"] == pytest.approx(2.0)
    assert metrics["eval/gold_mean"] == pytest.approx(4.0)
    # Differences 1, 0, 3: mean 4/3, Bessel variance 7/3.
    assert metrics["eval/gold_se"] == pytest.approx(math.sqrt(7 / 3 / 3))
    assert metrics["eval/win_rate"] == pytest.approx(2.5 / 3)


def test_without_gold_the_score_decides_who_wins_and_gold_is_null() -> None:
    metrics = eval_metrics([row(1.0, None), row(0.0, None)], [row(0.5, None), row(0.5, None)])

    assert metrics["eval/gold_mean"] is None
    assert metrics["eval/gold_se"] is None
    assert metrics["eval/win_rate"] == pytest.approx(0.5)


def test_prompts_without_a_value_on_either_side_are_left_out() -> None:
    metrics = eval_metrics([row(None, None), row(3.0, None)], [row(1.0, None), row(1.0, None)])

    assert metrics["eval/score_mean"] == pytest.approx(3.0)
    assert metrics["eval/win_rate"] == pytest.approx(1.0)
