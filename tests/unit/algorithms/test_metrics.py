"""Each metric of a step on batches that are small enough to compute by hand."""

import dataclasses
import math

import pytest
import torch
from torch import Tensor

from quatrain.algorithms.lengths import LengthBaseline
from quatrain.algorithms.losses import PolicySums, ValueSums
from quatrain.algorithms.metrics import (
    StepBatch,
    UpdateSums,
    batch_metrics,
    completion_metrics,
    explained_variance,
    mismatch,
    training_metrics,
)

NAN = math.nan


def matrix(*rows: list[float]) -> Tensor:
    return torch.tensor(rows, dtype=torch.float64)


BATCH = StepBatch(
    completions=[[5, 6], [5, 6, 7], [9]],
    stopped=[True, False, True],
    scores=[1.0, 2.0, 0.0],
    terms={"polite": [1.0, None, 0.0], "never": [None, None, None]},
    logprobs_BT=matrix([-1.0, -2.0, NAN], [-1.0, -1.0, -1.0], [-0.5, NAN, NAN]),
    sampler_logprobs_BT=matrix([-1.0, -2.0, NAN], [-1.0, -1.5, -1.0], [-0.5, NAN, NAN]),
    ref_logprobs_BT=matrix([-2.0, -2.0, NAN], [-1.0, -2.0, -3.0], [0.0, NAN, NAN]),
    mask_BT=torch.tensor([[True, True, False], [True, True, True], [True, False, False]]),
    entropy_BT=matrix([1.0, 2.0, NAN], [1.0, 2.0, 3.0], [3.0, NAN, NAN]),
    beta=0.1,
    staleness=[0, 0, 0],
    refused=2,
    skipped=1,
)

EXPECTED = {
    "reward/score_mean": 1.0,
    "reward/score_std": 1.0,
    "reward/polite_mean": 0.5,
    "reward/never_mean": None,
    # l - q by sequence: 1, 3, -0.5.
    "reward/kl_penalty": -0.1 * 3.5 / 3,
    "reward/total": 1.0 - 0.1 * 3.5 / 3,
    "reward/length_corr": 1.0,
    "reward/length_explained": None,
    "reward/refused": 2.0,
    "reward/skipped": 1.0,
    # b - q by sequence: 1, 2.5, -0.5; by token: 1, 0, 0, 0.5, 2, -0.5.
    "kl/ref_seq": 1.0,
    "kl/ref_seq_se": 1.5 / math.sqrt(3),
    "kl/ref_token": 0.5,
    "kl/ref_k3_token": sum(math.exp(-d) - 1 + d for d in (1, 0, 0, 0.5, 2, -0.5)) / 6,
    "kl/coef": 0.1,
    "policy/entropy": 2.0,
    "completions/length_mean": 2.0,
    "completions/length_min": 1.0,
    "completions/length_max": 3.0,
    "completions/length_p95": 2.9,
    "completions/eos_rate": 2 / 3,
    "completions/distinct_2": 2 / 3,
    "completions/duplicate_rate": 0.0,
    "sampler/mismatch_mean": 0.5 / 6,
    "sampler/mismatch_max": 0.5,
    "sampler/ess": (5 + math.exp(0.5)) ** 2 / (6 * (5 + math.exp(1.0))),
    "sampler/staleness": 0.0,
}


def test_batch_metrics_by_hand() -> None:
    metrics, baseline = batch_metrics(BATCH, LengthBaseline())

    assert metrics.keys() == EXPECTED.keys()
    for name, value in EXPECTED.items():
        assert metrics[name] == (None if value is None else pytest.approx(value, rel=1e-12, abs=1e-12)), name
    assert baseline == LengthBaseline(1, (2, 3, 1), (1.0, 2.0, 0.0))


def test_a_term_called_score_does_not_replace_the_composed_score() -> None:
    batch = dataclasses.replace(BATCH, terms={"score": [7.0, 7.0, 7.0]})

    metrics, _ = batch_metrics(batch, LengthBaseline())

    assert metrics["reward/score_mean"] == 1.0


def test_kl_is_zero_when_policy_and_reference_are_one() -> None:
    same = dataclasses.replace(BATCH, sampler_logprobs_BT=BATCH.ref_logprobs_BT)

    metrics, _ = batch_metrics(same, LengthBaseline())

    assert (metrics["kl/ref_seq"], metrics["kl/ref_token"], metrics["kl/ref_k3_token"]) == (0.0, 0.0, 0.0)


def test_a_stale_batch_has_no_mismatch() -> None:
    stale = dataclasses.replace(BATCH, staleness=[0, 1, 2])

    metrics, _ = batch_metrics(stale, LengthBaseline())

    assert (metrics["sampler/mismatch_mean"], metrics["sampler/mismatch_max"]) == (None, None)
    assert metrics["sampler/staleness"] == 1.0


def test_an_empty_batch_has_no_means() -> None:
    empty = torch.zeros(0, 1)
    batch = StepBatch([], [], [], {}, empty, empty, empty, empty.bool(), empty, beta=0.1, refused=4)

    metrics, _ = batch_metrics(batch, LengthBaseline())

    known = {name: value for name, value in metrics.items() if value is not None}
    assert known == {
        "reward/refused": 4.0,
        "reward/skipped": 0.0,
        "kl/coef": 0.1,
        "sampler/staleness": 0.0,
    }


def test_repeated_completions_are_duplicates_of_an_earlier_one() -> None:
    metrics = completion_metrics([[1, 2], [1, 2], [2, 1], [1, 2]], [True] * 4)

    assert metrics["completions/duplicate_rate"] == 0.5
    assert metrics["completions/distinct_2"] == 0.5


def test_single_tokens_have_no_bigrams() -> None:
    assert completion_metrics([[1]], [True])["completions/distinct_2"] is None


def test_mismatch_of_nothing_is_unknown() -> None:
    assert mismatch(torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(1, 1, dtype=torch.bool)) is None


def test_explained_variance() -> None:
    returns = matrix([1.0, 2.0, 3.0, NAN])
    mask = torch.tensor([[True, True, True, False]])

    assert explained_variance(matrix([1.0, 2.0, 3.0, 9.0]), returns, mask) == 1.0
    assert explained_variance(matrix([5.0, 5.0, 5.0, 9.0]), returns, mask) == 0.0
    assert explained_variance(matrix([3.0, 2.0, 1.0, 9.0]), returns, mask) == -3.0
    assert explained_variance(returns, matrix([1.0, 1.0, 1.0, 9.0]), mask) is None


def test_training_metrics_are_token_weighted() -> None:
    first = PolicySums(2, 1.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.75, 1.125)
    later = PolicySums(6, 3.0, 4.0, 1.0, 3.0, 6.0, 0.8, 0.5, 2.0)
    sums = UpdateSums(first, ValueSums(4, 2.0, 1.0), 1.0, 3.0) + UpdateSums(later, ValueSums(4, 4.0, 0.0), 3.0, 5.0)

    metrics = training_metrics(sums, first, kl_coef=0.1, entropy_coef=0.01)

    assert metrics == {
        "policy/loss": 0.5,
        "policy/clip_fraction": 0.5,
        "policy/clip_fraction_low": 0.125,
        "policy/clip_fraction_high": 0.375,
        "policy/clip_fraction_first": 0.0,
        "policy/ratio_dev_first": 0.25,
        "policy/ratio_mean": 1.0,
        "policy/ratio_min": 0.5,
        "policy/ratio_max": 2.0,
        "policy/approx_kl": 0.1,
        "value/loss": 0.75,
        "value/clip_fraction": 0.125,
        "loss/total": pytest.approx(0.5 + 0.1 * 0.5 + 0.75 - 0.01),
    }


def test_training_metrics_while_only_the_value_model_learns() -> None:
    metrics = training_metrics(UpdateSums(value=ValueSums(4, 2.0, 1.0)), None)

    assert (metrics["policy/loss"], metrics["policy/ratio_max"], metrics["policy/ratio_dev_first"]) == (
        None,
        None,
        None,
    )
    assert (metrics["value/loss"], metrics["loss/total"]) == (0.5, 0.5)
