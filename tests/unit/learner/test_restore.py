"""A run that is saved, thrown away and loaded again ends with the same bits as one that never stopped."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tests.unit.learner.stages import (
    TOTAL_STEPS,
    never,
    pair_table,
    ppo_settings,
    sealed,
    sft_table,
    stage_request,
    weights,
)
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.errors import Corrupt
from quatrain.learner.backends import Inputs, Trainer
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.stages import PPO, REWARD, SFT, STAGES, Stage

Opener = Callable[[], Trainer]
ROWS = {"data": "sha256:0", "batch_size": 3, "epochs": 2, "learning_rate": 1e-3, "microbatch_tokens": 30}
PPO_SETTINGS = ppo_settings(kl={"controller": "adaptive", "target": 1.0, "horizon": 50.0}, optimizer={"minibatches": 2})


def opener(stage: Stage, folder: Path, dtype: str = "") -> Opener:
    save_tiny_model(folder / "model")
    data = sft_table() if stage is SFT else pair_table()
    inputs = Inputs(folder / "model", data=data, held_out=pair_table(5, seed=9))
    request = stage_request(stage, PPO_SETTINGS if stage is PPO else ROWS, dtype=dtype)
    backend = TorchBackend("cpu", 1)
    return lambda: backend.open(request, inputs)


def run(trainer: Trainer, last: int) -> list[dict[str, float | None]]:
    metrics = []
    for step in range(trainer.step + 1, last + 1):
        trained = trainer.train(step, sealed(step) if isinstance_ppo(trainer) else None, never)
        metrics.append({name: value for name, value in trained.metrics.items() if not name.startswith("throughput")})
    return metrics


def isinstance_ppo(trainer: Trainer) -> bool:
    return type(trainer).__name__ == "PpoTrainer"


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_a_restored_run_is_bit_identical(tmp_path: Path, stage: Stage) -> None:
    open_trainer = opener(stage, tmp_path)
    unbroken, broken = open_trainer(), open_trainer()

    expected = run(unbroken, TOTAL_STEPS)
    got = run(broken, 3)
    (tmp_path / "checkpoint").mkdir()
    broken.save(tmp_path / "checkpoint")
    restored = open_trainer()
    restored.load(tmp_path / "checkpoint")
    got += run(restored, TOTAL_STEPS)

    assert got == expected
    assert restored.step == TOTAL_STEPS
    ours, theirs = weights(restored, tmp_path / "a"), weights(unbroken, tmp_path / "b")
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert (tmp_path / "a" / "state.json").read_bytes() == (tmp_path / "b" / "state.json").read_bytes()


def test_bfloat16_parameters_keep_float32_masters_over_a_restore(tmp_path: Path) -> None:
    open_trainer = opener(PPO, tmp_path, "bfloat16")
    unbroken, broken = open_trainer(), open_trainer()

    run(unbroken, 3)
    run(broken, 2)
    (tmp_path / "checkpoint").mkdir()
    broken.save(tmp_path / "checkpoint")
    restored = open_trainer()
    restored.load(tmp_path / "checkpoint")
    run(restored, 3)

    ours, theirs = weights(restored, tmp_path / "a"), weights(unbroken, tmp_path / "b")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    masters = [name for name in ours if name.endswith(":master")]
    assert masters
    assert all(ours[name].dtype == torch.float32 for name in masters)


@pytest.mark.parametrize(("controller", "expected"), [("fixed", 0.7), ("adaptive", 0.05)])
def test_a_fork_may_change_a_fixed_kl_coefficient_and_goes_on_with_an_adaptive_one(
    tmp_path: Path, controller: str, expected: float
) -> None:
    open_trainer = opener(PPO, tmp_path)
    (tmp_path / "checkpoint").mkdir()
    open_trainer().save(tmp_path / "checkpoint")
    kl = {"controller": controller, "target": 1.0, "horizon": 50.0, "coef": 0.7}
    request = stage_request(PPO, ppo_settings(kl=kl, optimizer={"minibatches": 2}))
    forked = TorchBackend("cpu", 1).open(request, Inputs(tmp_path / "model"))

    forked.load(tmp_path / "checkpoint")

    assert run(forked, 1)[0]["kl/coef"] == expected


def test_a_checkpoint_of_the_first_releases_is_taken_over(tmp_path: Path) -> None:
    """They say which policy version the stage began with, always 0, and more that nobody reads."""
    open_trainer = opener(PPO, tmp_path)
    unbroken, broken = open_trainer(), open_trainer()
    run(unbroken, 3)
    run(broken, 2)
    (tmp_path / "checkpoint").mkdir()
    broken.save(tmp_path / "checkpoint")
    state = tmp_path / "checkpoint" / "state.json"
    gone = {"first_policy_version": 0, "policy_version": 2, "skipped_total": 0}
    state.write_text(json.dumps({**json.loads(state.read_text()), **gone}))

    restored = open_trainer()
    restored.load(tmp_path / "checkpoint")

    assert restored.step == 2
    run(restored, 3)
    ours, theirs = weights(restored, tmp_path / "a"), weights(unbroken, tmp_path / "b")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    opener(SFT, tmp_path)().save(tmp_path / "checkpoint")

    with pytest.raises(Corrupt, match="stage"):
        opener(REWARD, tmp_path)().load(tmp_path / "checkpoint")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    trainer = opener(SFT, tmp_path)()
    trainer.save(tmp_path / "checkpoint")
    (tmp_path / "checkpoint" / "model.safetensors").write_bytes(b"short")

    with pytest.raises(Corrupt, match=r"model\.safetensors"):
        trainer.load(tmp_path / "checkpoint")
