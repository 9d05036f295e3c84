"""SFT and reward-model training: what a batch is, what its numbers are."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.learner.stages import TOTAL_STEPS, never, pair_table, sft_table, stage_request
from tests.unit.models.tiny_models import save_tiny_model

from quatrain.algorithms.permutation import permutation
from quatrain.data.tables import read_pairs, read_sft
from quatrain.errors import InvalidData, InvalidInput
from quatrain.jobspec.sections import SftSpec
from quatrain.learner.backends import Inputs
from quatrain.learner.backends.row_order import RowOrder
from quatrain.learner.backends.torch_backend import TorchBackend, read_section
from quatrain.models.loading import load_causal_lm, load_sequence_classifier
from quatrain.stages import REWARD, SFT, Stage

ROWS = {"data": "sha256:0", "batch_size": 3, "epochs": 2, "learning_rate": 1e-3, "microbatch_tokens": 30}


def test_every_epoch_sees_every_row_once_in_another_order() -> None:
    order = RowOrder("sft", rows=7, batch_size=3, seed=1)

    epochs = [[row for step in steps for row in order.batch(step)] for steps in ((1, 2, 3), (4, 5, 6))]

    assert [len(order.batch(step)) for step in (1, 2, 3)] == [3, 3, 1]
    assert [sorted(epoch) for epoch in epochs] == [list(range(7))] * 2
    assert epochs[0] != epochs[1]
    assert epochs[0] == permutation(7, "sft", 1, 0)


def test_no_rows_are_refused() -> None:
    with pytest.raises(InvalidData, match="no rows"):
        RowOrder("sft", rows=0, batch_size=3, seed=1)


def test_the_sft_loss_is_the_mean_over_completion_tokens_of_the_batch(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    trainer = TorchBackend("cpu", 1).open(stage_request(SFT, ROWS), Inputs(folder, data=sft_table()))
    model = load_causal_lm(folder)
    table = read_sft(sft_table())
    losses, hits = [], []
    for row in permutation(7, "sft", 3, 0)[:3]:
        prompt, completion = table.prompt_ids[row], table.completion_ids[row]
        ids = torch.from_numpy(np.concatenate([prompt, completion]).astype(np.int64))
        logits = model(ids[None]).logits[0].detach()
        for t in range(len(prompt), len(ids)):
            losses.append(-float(torch.log_softmax(logits[t - 1], dim=-1)[ids[t]]))
            hits.append(int(logits[t - 1].argmax()) == int(ids[t]))

    metrics = trainer.train(1, None, never).metrics

    assert metrics["loss"] == pytest.approx(sum(losses) / len(losses), rel=1e-5)
    assert metrics["accuracy"] == pytest.approx(sum(hits) / len(hits))
    assert metrics["tokens"] == len(losses)
    assert metrics["optim/learning_rate"] == pytest.approx(1e-3 / 2)  # warm-up of one step


@pytest.mark.parametrize("stage", [SFT, REWARD], ids=str)
def test_microbatches_do_not_change_rows_either(tmp_path: Path, stage: Stage) -> None:
    folder = save_tiny_model(tmp_path / "model")
    inputs = Inputs(folder, data=sft_table() if stage is SFT else pair_table())
    one, other = (
        TorchBackend("cpu", 1).open(stage_request(stage, {**ROWS, "microbatch_tokens": budget}), inputs)
        for budget in (1, 10_000)
    )

    for step in (1, 2):
        ours, theirs = one.train(step, None, never).metrics, other.train(step, None, never).metrics
        assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-5)
        assert ours["optim/grad_norm"] == pytest.approx(theirs["optim/grad_norm"], rel=1e-5)


def test_the_reward_loss_is_pairwise_and_the_last_step_judges_held_out_pairs(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model")
    request = stage_request(REWARD, ROWS)
    inputs = Inputs(folder, data=pair_table(), held_out=pair_table(40, seed=9))
    trainer = TorchBackend("cpu", 1).open(request, inputs)
    model = load_sequence_classifier(folder, new_head_seed=request.seed)
    pairs = read_pairs(pair_table())
    rows = permutation(7, "reward", 3, 0)[:3]

    def score(ids: np.ndarray) -> float:
        hidden = model.base_model(torch.from_numpy(ids.astype(np.int64))[None]).last_hidden_state
        return float(model.score(hidden[0, -1]).detach())  # type: ignore[operator]

    margins = [score(pairs.chosen_ids[row]) - score(pairs.rejected_ids[row]) for row in rows]
    losses = [np.log1p(np.exp(-(m - (pairs.margin[row] or 0.0)))) for m, row in zip(margins, rows, strict=True)]

    first = trainer.train(1, None, never).metrics
    for step in range(2, TOTAL_STEPS):
        metrics = trainer.train(step, None, never).metrics
    last = trainer.train(TOTAL_STEPS, None, never).metrics

    assert first["loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert first["margin"] == pytest.approx(np.mean(margins), rel=1e-4)
    assert first["accuracy"] == pytest.approx(np.mean([margin > 0 for margin in margins]))
    assert "reward_model/held_out_accuracy" not in metrics
    assert last["reward_model/accuracy"] is not None
    held_out = last["reward_model/held_out_accuracy"]
    assert held_out is not None
    assert 0.2 < held_out < 0.8
    assert last["reward_model/calibration_error"] is not None
    assert last["reward_model/length_corr"] is not None


def test_a_row_outside_the_vocabulary_is_refused_at_opening(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", vocabulary=20)

    with pytest.raises(InvalidData, match="outside"):
        TorchBackend("cpu", 1).open(stage_request(SFT, ROWS), Inputs(folder, data=sft_table()))


def test_a_wrong_section_names_its_fields() -> None:
    with pytest.raises(InvalidInput, match="learning_rate") as caught:
        read_section(SftSpec, json.dumps({**ROWS, "learning_rate": -1.0}))
    assert caught.value.violations[0].field == "learning_rate"


@pytest.mark.parametrize("text", ["", "[]", "{"])
def test_a_section_that_is_no_json_object_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="config_json"):
        read_section(SftSpec, text)
