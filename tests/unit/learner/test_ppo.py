"""The PPO trainer: what must not matter does not, what must matter does."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.learner.stages import (
    METRICS,
    never,
    policy_weights,
    ppo_settings,
    ppo_trainer,
    rollout,
    sealed,
    weights,
)

from quatrain.batches import BatchRow, read_tokens, write_batch
from quatrain.errors import InvalidInput, RunFailed
from quatrain.learner.backends.ppo.signals import EXACT_MISMATCH
from quatrain.learner.backends.ppo.trainer import PpoTrainer


def test_a_step_reports_every_metric_and_every_token(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)

    trained = trainer.train(1, sealed(1), never)

    assert set(trained.metrics) == METRICS
    assert trained.tokens is not None
    rows = read_tokens(trained.tokens)
    assert [row.rollout_id for row in rows] == [f"r{number}" for number in range(10)]
    assert all(len(row.advantages) == len(rollout(i, seed=1).completion_ids) for i, row in enumerate(rows))
    assert all((row.entropy > 0).all() and (row.logprobs < 0).all() for row in rows)


def test_the_first_minibatch_has_ratio_one(tmp_path: Path) -> None:
    trained = ppo_trainer(tmp_path, ppo_settings(optimizer={"minibatches": 3})).train(1, sealed(1), never)

    assert trained.metrics["policy/clip_fraction_first"] == 0.0
    first = trained.metrics["policy/ratio_dev_first"]
    assert first is not None
    assert first == 0.0
    last = trained.metrics["policy/ratio_max"]
    assert last is not None
    assert last > 1.0001


@pytest.mark.parametrize("budget", [1, 25, 10_000])
def test_microbatches_do_not_change_the_step(tmp_path: Path, budget: int) -> None:
    reference = ppo_trainer(tmp_path, ppo_settings(entropy_coef=0.01))
    other = ppo_trainer(tmp_path, ppo_settings(entropy_coef=0.01, optimizer={"microbatch_tokens": budget}))

    expected = reference.train(1, sealed(1), never).metrics
    got = other.train(1, sealed(1), never).metrics

    for name in ("policy/loss", "value/loss", "optim/policy_grad_norm", "optim/value_grad_norm", "loss/total"):
        assert got[name] == pytest.approx(expected[name], rel=1e-5, abs=1e-7), name
    ours, theirs = weights(other, tmp_path / f"o{budget}"), weights(reference, tmp_path / "ref")
    moments = [name for name in ours if name.endswith("exp_avg")]
    assert len(moments) > 20
    for name in moments:
        # The first moment is the gradient; small elements carry the rounding of large ones that cancel.
        scale = float(theirs[name].abs().max())
        torch.testing.assert_close(ours[name], theirs[name], rtol=1e-5, atol=2e-5 * scale)


def test_refused_and_skipped_rows_change_nothing(tmp_path: Path) -> None:
    rows = [rollout(number) for number in range(8)]
    poisoned = replace(rollout(90), status="refused", reason="NAN_SCORE", score=math.nan, rollout_id="bad")
    skipped = BatchRow("none", 91, 0, 0, 0, "d", "skipped")
    clean, dirty = ppo_trainer(tmp_path), ppo_trainer(tmp_path)

    plain = clean.train(1, write_batch(rows), never)
    mixed = dirty.train(1, write_batch([poisoned, *rows[:4], skipped, *rows[4:]]), never)

    counted = {"reward/refused": 1.0, "reward/skipped": 1.0}
    ignored = {"throughput/train_tokens_per_s": None}
    assert {**mixed.metrics, **ignored} == {**plain.metrics, **counted, **ignored}
    assert mixed.tokens == plain.tokens
    ours, theirs = weights(dirty, tmp_path / "a"), weights(clean, tmp_path / "b")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"score": math.nan}, "score nan"),
        ({"score": None}, "score None"),
        ({"completion_ids": np.array([1, 40], np.int32)}, "outside"),
        ({"logprobs": np.array([-1.0], np.float32)}, "one logprob for each"),
        ({"prompt_ids": np.array([], np.int32)}, "empty"),
        ({"policy_version": 7}, "has not reached"),
        ({"completion_ids": np.zeros(80, np.int32)}, "positions"),
    ],
)
def test_a_poisoned_rollout_never_reaches_the_optimizer(
    tmp_path: Path, change: dict[str, object], problem: str
) -> None:
    trainer = ppo_trainer(tmp_path)
    before = weights(trainer, tmp_path / "before")
    row = rollout(0)
    two = {"completion_ids": row.completion_ids[:2], "logprobs": row.logprobs[:2], "ref_logprobs": row.ref_logprobs[:2]}
    bad = replace(row, **{**two, **change})  # type: ignore[arg-type]

    with pytest.raises(InvalidInput, match=problem):
        trainer.train(1, write_batch([bad, rollout(1)]), never)

    after = weights(trainer, tmp_path / "after")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_step_without_rollouts_trains_nothing_and_has_no_numbers(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    before = policy_weights(trainer, tmp_path / "before")

    trained = trainer.train(1, write_batch([BatchRow("none", 0, 0, 0, 0, "d", "skipped")]), never)

    assert set(trained.metrics) == METRICS - {"reward/helpful_mean"}
    assert trained.metrics["policy/loss"] is None
    assert trained.metrics["reward/score_mean"] is None
    assert trainer.step == 1
    assert all(torch.equal(before[name], after) for name, after in policy_weights(trainer, tmp_path / "a").items())


def test_a_non_finite_update_is_skipped_counted_and_at_last_fatal(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, ppo_settings(max_skipped_updates=3, optimizer={"epochs": 2}))
    with torch.no_grad():
        next(trainer._policy.model.parameters())[0, 0] = math.inf

    trained = trainer.train(1, sealed(1), never)

    # Both models: the policy's loss is NaN, and so are the returns that it made.
    assert trained.metrics["optim/skipped"] == 4.0
    assert trained.metrics["policy/loss"] is None
    moments = [name for name in weights(trainer, tmp_path / "s") if name.endswith("exp_avg")]
    assert moments == []
    with pytest.raises(RunFailed, match="in a row"):
        trainer.train(2, sealed(2), never)


def test_value_warm_up_leaves_the_policy_alone(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path, ppo_settings(optimizer={"value_warmup_steps": 1}))
    before = policy_weights(trainer, tmp_path / "before")

    trained = trainer.train(1, sealed(1), never)

    assert all(torch.equal(before[name], after) for name, after in policy_weights(trainer, tmp_path / "a").items())
    assert trained.metrics["policy/loss"] is None
    assert trained.metrics["value/loss"] is not None
    assert trainer.train(2, sealed(2), never).metrics["policy/loss"] is not None


def test_target_kl_ends_the_epochs(tmp_path: Path) -> None:
    long = ppo_trainer(tmp_path, ppo_settings(optimizer={"epochs": 6}))
    short = ppo_trainer(tmp_path, ppo_settings(optimizer={"epochs": 6, "target_kl": 1e-7}))
    two = ppo_trainer(tmp_path, ppo_settings(optimizer={"epochs": 2}))
    for trainer in (long, short, two):
        trainer.train(1, sealed(1), never)

    # The first epoch has ratio 1; the second one moved.
    ours, theirs = policy_weights(short, tmp_path / "s"), policy_weights(two, tmp_path / "t")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert any(not torch.equal(ours[name], other) for name, other in policy_weights(long, tmp_path / "l").items())


def test_kl_in_the_loss_moves_the_policy_towards_the_reference(tmp_path: Path) -> None:
    kl = {"placement": "loss", "estimator": "k2", "coef": 0.5, "acknowledge_rescaled_beta": True}
    with_kl = ppo_trainer(tmp_path, ppo_settings(kl=kl))
    without = ppo_trainer(tmp_path, ppo_settings(kl={**kl, "coef": 0.0}))

    metrics = with_kl.train(1, sealed(1), never).metrics
    plain = without.train(1, sealed(1), never).metrics

    total, policy, value = metrics["loss/total"], metrics["policy/loss"], metrics["value/loss"]
    assert total is not None
    assert policy is not None
    assert value is not None
    assert total > policy + value + 0.01
    assert plain["loss/total"] == pytest.approx(plain["policy/loss"] + plain["value/loss"])  # type: ignore[operator]
    assert metrics["value/explained_variance"] == plain["value/explained_variance"]


def test_the_adaptive_controller_changes_the_coefficient_of_the_next_step(tmp_path: Path) -> None:
    kl = {"controller": "adaptive", "target": 6.0, "horizon": 100.0, "coef": 0.2}
    trainer = ppo_trainer(tmp_path, ppo_settings(kl=kl))

    first = trainer.train(1, sealed(1), never).metrics
    second = trainer.train(2, sealed(2), never).metrics

    assert first["kl/coef"] == 0.2
    # The KL of these rows is far below the target: the error is cut to -0.2, ten sequences of a horizon of 100.
    assert second["kl/coef"] == pytest.approx(0.2 * (1 - 0.2 * 10 / 100))


def test_exact_sampler_logprobs_need_no_importance_weights(tmp_path: Path) -> None:
    """Weights stay out only if exactness was announced, the rows are fresh, and the measured mismatch agrees."""
    rows = [rollout(number) for number in range(6)]
    probe = ppo_trainer(tmp_path)
    logprobs = probe.logprobs([row.prompt_ids for row in rows], [row.completion_ids for row in rows], 1.0)
    exact = [replace(row, logprobs=own) for row, own in zip(rows, logprobs, strict=True)]
    off = [replace(row, logprobs=row.logprobs - np.float32(3 * EXACT_MISMATCH)) for row in exact]

    def loss(batch: list[BatchRow], announced: bool) -> float:
        trainer = ppo_trainer(tmp_path, ppo_settings(optimizer={"epochs": 1}), exact_logprobs=announced)
        value = trainer.train(1, write_batch(batch), never).metrics["policy/loss"]
        assert value is not None
        return value

    assert loss(exact, True) == pytest.approx(loss(exact, False), abs=1e-6)
    weight = math.exp(3 * EXACT_MISMATCH)
    assert loss(off, True) == pytest.approx(weight * loss(exact, True), rel=1e-3, abs=1e-6)


def test_stale_rows_have_no_mismatch_but_a_staleness(tmp_path: Path) -> None:
    trainer = ppo_trainer(tmp_path)
    trainer.train(1, sealed(1), never)

    metrics = trainer.train(2, sealed(2, staleness=1), never).metrics

    assert metrics["sampler/staleness"] == 1.0
    assert metrics["sampler/mismatch_max"] is None
    assert metrics["sampler/ess"] is not None


def test_the_value_model_starts_at_the_scaled_and_centred_score(tmp_path: Path) -> None:
    from quatrain.learner.backends.tokens import TokenRows
    from quatrain.models.scores import last_token_scores

    trainer = ppo_trainer(tmp_path, value_scale=2.0, value_offset=0.25)
    plain = ppo_trainer(tmp_path)
    row = rollout(0)
    tokens = TokenRows([row.prompt_ids], [row.completion_ids], torch.device("cpu"))
    micro = tokens.microbatches([0], 1000)[0]

    def values_of(trainer: PpoTrainer) -> torch.Tensor:
        values_N = trainer._critic.values(tokens, [micro], never)
        assert values_N is not None
        return values_N

    values, unscaled = values_of(trainer), values_of(plain)

    torch.testing.assert_close(values, 2.0 * (unscaled - 0.25))
    from quatrain.models.loading import load_sequence_classifier

    classifier = load_sequence_classifier(tmp_path / "reward")
    before_last = np.concatenate([row.prompt_ids, row.completion_ids[:-1]])
    assert float(unscaled[-1]) == pytest.approx(float(last_token_scores(classifier, [before_last], 100)[0]), abs=1e-5)
