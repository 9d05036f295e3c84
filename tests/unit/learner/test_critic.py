"""PPO without a critic: an estimator of the tests' own that compares the samples of a prompt with each other."""

import math
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.unit.learner.stages import METRICS, never, ppo_settings, rollout, stage_request, weights
from tests.unit.learner.test_ranks import Paired
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.algorithms import advantages
from quatrain.algorithms.advantages import Estimate, Estimator, EstimatorInputs
from quatrain.batches import BatchRow, read_tokens, write_batch
from quatrain.errors import InvalidInput
from quatrain.jobspec.sections import PpoSpec
from quatrain.learner.backends import Inputs
from quatrain.learner.backends.ppo.trainer import PpoTrainer
from quatrain.learner.backends.ranks import ALONE, Ranks
from quatrain.learner.backends.torch_backend import read_section
from quatrain.models.loading import load_causal_lm
from quatrain.stages import PPO

GROUP_MEAN = "group-mean"
OF_THE_CRITIC = {
    "value/loss",
    "value/clip_fraction",
    "value/explained_variance",
    "optim/value_lr",
    "optim/value_grad_norm",
}


def group_mean(inputs: EstimatorInputs) -> Estimate:
    """The sum of a sequence's rewards minus the mean of its group, at every token."""
    assert inputs.values_BT is None
    rewards_BT = torch.where(inputs.mask_BT, inputs.rewards_BT, torch.zeros_like(inputs.rewards_BT))
    totals_B = rewards_BT.sum(dim=1)
    same_BB = (inputs.groups_B[:, None] == inputs.groups_B[None, :]).to(totals_B.dtype)
    baseline_B = same_BB @ totals_B / same_BB.sum(dim=1)
    return Estimate((totals_B - baseline_B)[:, None] * inputs.mask_BT)


@pytest.fixture(autouse=True)
def estimators(monkeypatch: pytest.MonkeyPatch) -> None:
    added = {
        GROUP_MEAN: Estimator(group_mean, needs_critic=False),
        "no-returns": Estimator(lambda inputs: Estimate(inputs.rewards_BT), needs_critic=True),
    }
    monkeypatch.setattr(advantages, "ESTIMATORS", {**advantages.ESTIMATORS, **added})


def trainer_of(
    folder: Path, *, estimator: str = GROUP_MEAN, ranks: Ranks = ALONE, exact_logprobs: bool = False, **sections: Any
) -> PpoTrainer:
    """A trainer whose spec names an estimator that the published spec does not know."""
    if not (folder / "policy").exists():
        save_tiny_model(folder / "policy")
    torch.set_num_threads(1)
    request = stage_request(PPO, ppo_settings(**sections), exact_logprobs=exact_logprobs)
    spec = read_section(PpoSpec, request.config_json)
    spec = spec.model_copy(update={"advantage": spec.advantage.model_copy(update={"estimator": estimator})})
    return PpoTrainer(request, spec, Inputs(folder / "policy", folder / "nowhere"), torch.device("cpu"), ranks)


def rows_of(step: int, prompts: int = 4, samples: int = 3) -> list[BatchRow]:
    """Some samples for each of some prompts."""
    rows = []
    for number in range(prompts * samples):
        prompt, sample = divmod(number, samples)
        row = rollout(number, version=step - 1, seed=step)
        rows.append(replace(row, prompt_index=prompt, sample_index=sample))
    return rows


def grouped(step: int) -> bytes:
    return write_batch(rows_of(step))


def run(trainer: PpoTrainer, last: int) -> list[dict[str, float | None]]:
    results = [trainer.train(step, grouped(step), never).metrics for step in range(trainer.step + 1, last + 1)]
    return [{name: value for name, value in of.items() if "per_s" not in name} for of in results]


def test_steps_train_a_policy_and_nothing_else(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path, optimizer={"minibatches": 2})
    before = weights(trainer, tmp_path / "before")

    results = [trainer.train(step, grouped(step), never) for step in (1, 2, 3)]

    for result in results:
        assert set(result.metrics) == METRICS
        unknown = {name for name, value in result.metrics.items() if value is None}
        assert unknown == OF_THE_CRITIC | {"reward/length_explained"}
        assert result.metrics["loss/total"] == result.metrics["policy/loss"]
        assert result.metrics["optim/skipped"] == 0.0
        assert result.tokens is not None
        for row in read_tokens(result.tokens):
            assert len(row.values) == len(row.returns) == 0
            assert len(row.advantages) == len(row.logprobs) == len(row.entropy) > 1
    after = weights(trainer, tmp_path / "after")
    assert any(not torch.equal(before[name], after[name]) for name in before if name.startswith("policy/"))
    assert {path.name for path in (tmp_path / "after").iterdir()} == {
        "policy.safetensors",
        "policy_optimizer.safetensors",
        "random.safetensors",
        "state.json",
    }


def test_a_restored_run_is_bit_identical(tmp_path: Path) -> None:
    kl = {"controller": "adaptive", "target": 1.0, "horizon": 50.0}
    unbroken, broken = trainer_of(tmp_path, kl=kl), trainer_of(tmp_path, kl=kl)

    expected = run(unbroken, 4)
    got = run(broken, 2)
    (tmp_path / "checkpoint").mkdir()
    broken.save(tmp_path / "checkpoint")
    restored = trainer_of(tmp_path, kl=kl)
    restored.load(tmp_path / "checkpoint")
    got += run(restored, 4)

    assert got == expected
    ours, theirs = weights(restored, tmp_path / "a"), weights(unbroken, tmp_path / "b")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "a" / "state.json").read_bytes() == (tmp_path / "b" / "state.json").read_bytes()


def test_the_gradient_is_that_of_reinforce_with_the_mean_of_the_group(tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "kl": {"coef": 0.0},
        "advantage": {"whiten": False},
        "optimizer": {"epochs": 1, "grad_clip": 1e9},
    }
    rows = rows_of(1)
    trainer = trainer_of(tmp_path, exact_logprobs=True, **settings)
    own = trainer.logprobs([row.prompt_ids for row in rows], [row.completion_ids for row in rows], 1.0)
    rows = [replace(row, logprobs=logprobs) for row, logprobs in zip(rows, own, strict=True)]

    metrics = trainer.train(1, write_batch(rows), never).metrics

    expected = reinforce(tmp_path / "policy", rows)
    norm = math.sqrt(sum(float(gradient.double().square().sum()) for gradient in expected.values()))
    assert metrics["optim/policy_grad_norm"] == pytest.approx(norm, rel=1e-4)
    state = weights(trainer, tmp_path / "state")
    for name, gradient in expected.items():
        first_moment = state[f"policy_optimizer/{name}:exp_avg"]
        # AdamW's first moment after one update is a tenth of the gradient.
        torch.testing.assert_close(10 * first_moment, gradient, rtol=1e-4, atol=1e-5 * float(gradient.abs().max()))


def reinforce(folder: Path, rows: Sequence[BatchRow]) -> dict[str, torch.Tensor]:
    """Gradients of -A log p, each row read by itself, over all completion tokens of the batch."""
    model = load_causal_lm(folder)
    loss = torch.zeros(())
    for row in rows:
        group = [other.score or 0.0 for other in rows if other.prompt_index == row.prompt_index]
        ids = torch.from_numpy(np.concatenate([row.prompt_ids, row.completion_ids]).astype(np.int64))
        logprobs = torch.log_softmax(model(ids[None]).logits[0], dim=-1)
        start = len(row.prompt_ids)
        of_tokens = logprobs[torch.arange(start - 1, len(ids) - 1), ids[start:]]
        loss = loss - ((row.score or 0.0) - sum(group) / len(group)) * of_tokens.sum()
    tokens = sum(len(row.completion_ids) for row in rows)
    torch.autograd.backward(loss / tokens)
    return {name: value.grad for name, value in model.named_parameters() if value.grad is not None}


def test_a_group_that_has_lost_a_sample_is_compared_without_it(tmp_path: Path) -> None:
    rows = rows_of(1, prompts=2)
    rows[1] = replace(rows[1], status="refused", reason="NAN_SCORE", score=math.nan)
    trainer = trainer_of(tmp_path, kl={"coef": 0.0}, advantage={"whiten": False})

    tokens = trainer.train(1, write_batch(rows), never).tokens

    assert tokens is not None
    scores = [row.score or 0.0 for row in rows]
    means = [(scores[0] + scores[2]) / 2] * 2 + [sum(scores[3:]) / 3] * 3
    left = [row for row in rows if row.status == "rollout"]
    for row, found, mean in zip(left, read_tokens(tokens), means, strict=True):
        assert found.rollout_id == row.rollout_id
        np.testing.assert_allclose(found.advantages, (row.score or 0.0) - mean, rtol=1e-5, atol=1e-6)


def test_two_ranks_train_as_one_does(tmp_path: Path) -> None:
    alone = trainer_of(tmp_path)
    meeting, table = threading.Barrier(2), dict[int, list[float]]()
    pair = [trainer_of(tmp_path, ranks=Paired(rank, table, meeting)) for rank in (0, 1)]

    expected = run(alone, 2)
    other = threading.Thread(target=run, args=(pair[1], 2))
    other.start()
    got = run(pair[0], 2)
    other.join(60.0)

    assert pair[0].fingerprint() == pair[1].fingerprint()
    for ours, theirs in zip(got, expected, strict=True):
        assert {name for name, value in ours.items() if value is None} == OF_THE_CRITIC | {"reward/length_explained"}
        assert ours["policy/loss"] == pytest.approx(theirs["policy/loss"], rel=1e-4, abs=1e-6)
        assert ours["optim/policy_grad_norm"] == pytest.approx(theirs["optim/policy_grad_norm"], rel=1e-4)


def test_a_step_without_rollouts_trains_nothing(tmp_path: Path) -> None:
    trainer = trainer_of(tmp_path)

    result = trainer.train(1, write_batch([BatchRow("none", 0, 0, 0, 0, "d", "skipped")]), never)

    assert set(result.metrics) == METRICS - {"reward/helpful_mean"}
    assert result.metrics["policy/loss"] is None


def test_a_warm_up_of_the_value_model_needs_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="value_warmup_steps"):
        trainer_of(tmp_path, optimizer={"value_warmup_steps": 2})


def test_an_estimator_that_needs_a_critic_has_to_teach_it(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "nowhere", "reward", seed=1)

    with pytest.raises(ValueError, match="returns"):
        trainer_of(tmp_path, estimator="no-returns").train(1, grouped(1), never)
