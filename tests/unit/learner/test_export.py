"""What the trainers write opens with transformers, and equal weights give equal bytes."""

from pathlib import Path

import pytest
import torch
from tests.unit.learner.stages import never, pair_table, ppo_settings, sealed, sft_table, stage_request
from tests.unit.models.tiny_models import save_tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

from quatrain.errors import WrongState
from quatrain.learner.artifacts import weights_sha256
from quatrain.learner.backends import Inputs, Trainer
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.stages import PPO, REWARD, SFT, Stage
from quatrain.storage.folders import describe_folder

ROWS = {"data": "sha256:0", "batch_size": 4, "learning_rate": 1e-3, "microbatch_tokens": 60}


def trained(stage: Stage, folder: Path, *, tied: bool = False) -> Trainer:
    """A trainer after one step."""
    save_tiny_model(folder / "model", tied=tied)
    data = sft_table() if stage is SFT else pair_table()
    request = stage_request(stage, ppo_settings() if stage is PPO else ROWS)
    trainer = TorchBackend("cpu", 1).open(request, Inputs(folder / "model", data=data))
    trainer.train(1, sealed(1) if stage is PPO else None, never)
    return trainer


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("stage", [SFT, PPO], ids=str)
def test_a_language_model_opens_with_transformers(tmp_path: Path, stage: Stage, tied: bool) -> None:
    trainer = trained(stage, tmp_path, tied=tied)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        trainer.write_model(tmp_path / name)

    model = AutoModelForCausalLM.from_pretrained(tmp_path / "one")

    ids = torch.tensor([[1, 2, 3, 4, 5]])
    logprobs = torch.log_softmax(model(ids).logits[0].detach(), dim=-1)
    expected = [float(logprobs[t, ids[0, t + 1]]) for t in (1, 2, 3)]
    row = trainer.logprobs([ids[0, :2].int().numpy()], [ids[0, 2:].int().numpy()], 1.0)[0]
    assert row.tolist() == pytest.approx(expected, abs=1e-5)
    assert {path.name for path in (tmp_path / "one").iterdir()} == {
        "config.json",
        "generation_config.json",
        "model.safetensors",
    }
    assert describe_folder(tmp_path / "one") == describe_folder(tmp_path / "two")
    assert weights_sha256(tmp_path / "one") == weights_sha256(tmp_path / "two")


def test_a_reward_model_opens_with_transformers_as_a_classifier_with_one_label(tmp_path: Path) -> None:
    trainer = trained(REWARD, tmp_path)
    (tmp_path / "out").mkdir()
    trainer.write_model(tmp_path / "out")

    model, report = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out", output_loading_info=True)

    assert model.config.num_labels == 1
    assert model.score.bias is None
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    with pytest.raises(WrongState):
        trainer.logprobs([], [], 1.0)
