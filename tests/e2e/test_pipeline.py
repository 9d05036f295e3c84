"""SFT, reward model and PPO in one job: what each stage leaves behind, and that a killed learner costs no bits."""

import json
import math
import shutil
import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tests.e2e.metric_names import EVERY_STEP
from tests.e2e.stack import Stack, finish, running_stack, wait_until
from tests.e2e.tasks import Spec, pipeline
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from quatrain.client import Client, Job


@dataclass(frozen=True)
class Finished:
    """The finished job, its spec and what it ran on."""

    stack: Stack
    client: Client
    spec: Spec
    job: Job


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    spec = pipeline(tmp_path_factory.mktemp("spec"))
    with running_stack(tmp_path_factory.mktemp("pipeline")) as stack, stack.client() as client:
        yield Finished(stack, client, spec, finish(stack, client, client.submit(spec)))


def _download(finished: Finished, what: str, to: Path) -> Path:
    finished.client.download(finished.job.id, to, what=what)
    return to


def test_stages_follow_each_other(finished: Finished) -> None:
    events = finished.client.events(finished.job.id)

    started = [event.data["stage"] for event in events if event.type == "stage_started"]
    completed = [event.data["stage"] for event in events if event.type == "stage_completed"]
    assert started == completed == ["sft", "reward", "ppo"]
    assert finished.job.sft_model is not None
    assert finished.job.reward_model is not None
    assert finished.job.model is not None
    assert finished.job.stage_models == {
        "sft": finished.job.sft_model,
        "reward": finished.job.reward_model,
        "ppo": finished.job.model,
    }


def test_every_stage_has_its_metrics(finished: Finished) -> None:
    sft = finished.client.metrics(finished.job.id, stage="sft")
    reward = finished.client.metrics(finished.job.id, stage="reward")
    ppo = finished.client.metrics(finished.job.id, stage="ppo")

    assert len(sft) == 12
    assert len(reward) == 11  # 96 pairs, 9 of them held out, 8 a step
    assert [row["step"] for row in ppo] == list(range(1, 13))
    assert sft[-1]["loss"] < sft[0]["loss"]
    assert reward[-1]["reward_model/held_out_accuracy"] > 0.9
    for row in ppo:
        assert set(row) >= EVERY_STEP | {"reward/reward_model_mean"}
    assert ppo[-1]["reward/score_mean"] > ppo[0]["reward/score_mean"]


def test_scores_start_centred(finished: Finished) -> None:
    samples = finished.client.rollouts(finished.job.id, step=1)
    (measured,) = [event for event in finished.client.events(finished.job.id) if event.type == "offset_measured"]

    raw = [sample.terms["reward_model"] for sample in samples]
    values = [value for value in raw if value is not None]
    standard_error = statistics.stdev(values) / math.sqrt(len(values))
    # The offset is the mean over 512 other samples of the same policy.
    assert abs(statistics.fmean(values) - measured.data["offset"]) < 4 * standard_error


def test_ends_are_known_by_finish_reason(finished: Finished) -> None:
    for sample in finished.client.rollouts(finished.job.id, step=12):
        stopped = sample.completion_ids[-1] == 11
        assert sample.finish_reason == ("stop" if stopped else "length")
        assert stopped or len(sample.completion_ids) == 8
        assert 11 not in sample.completion_ids[:-1]


def test_models_open_with_transformers(finished: Finished, tmp_path: Path) -> None:
    policy = _download(finished, "model", tmp_path / "policy")
    sft = _download(finished, "sft_model", tmp_path / "sft")

    for folder in (policy, sft):
        model = AutoModelForCausalLM.from_pretrained(folder)
        ids = AutoTokenizer.from_pretrained(folder)("s1 s2", return_tensors="pt")["input_ids"]
        assert torch.isfinite(model(input_ids=ids).logits).all()


def test_reward_model_opens_as_a_classifier_and_scores_as_the_service(finished: Finished, tmp_path: Path) -> None:
    folder = _download(finished, "reward_model", tmp_path / "reward")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    offset = json.loads((folder / "quatrain.json").read_text())["offset"]
    (measured,) = [event for event in finished.client.events(finished.job.id) if event.type == "offset_measured"]

    assert model.config.num_labels == 1
    assert (measured.data["offset"], measured.data["samples"]) == (offset, 512)
    for sample in finished.client.rollouts(finished.job.id, step=3, limit=8):
        # The hidden state at the last real token, whatever pad ids there are.
        ids = torch.tensor([[*sample.prompt_ids, *sample.completion_ids]])
        with torch.no_grad():
            hidden = model.model(input_ids=ids).last_hidden_state[0, -1]
            raw = float(model.score(hidden))
        penalty = 1.0 if sample.finish_reason == "length" else 0.0
        assert sample.score == pytest.approx(raw - offset - penalty, abs=1e-4)


def test_value_model_starts_from_the_reward_model(finished: Finished) -> None:
    resolved = finished.job.resolved_spec
    first = finished.client.metrics(finished.job.id)[0]

    assert resolved is not None
    assert resolved["ppo"]["value_init"] == "reward"
    # Values of a zero head would explain nothing of the returns.
    assert first["value/explained_variance"] != 0


@pytest.mark.parametrize(("stage", "step"), [("sft", 5), ("reward", 5)])
def test_learner_killed_in_a_supervised_stage(finished: Finished, stage: str, step: int) -> None:
    client, stack = finished.client, finished.stack
    job = client.submit(finished.spec)

    def reached() -> bool:
        now = client.get(job.id)
        return now.stage == stage and now.step >= step

    wait_until(reached, 120.0, f"step {step} of {stage} was not reached")
    killed = stack.kill("learner-0")
    broken = finish(stack, client, job)

    assert broken.weights_sha256 == finished.job.weights_sha256
    opened = [event.data["stage"] for event in client.events(job.id) if event.type == "learner_opened"]
    assert opened.count(stage) == 2
    assert broken.sft_model == finished.job.sft_model
    stack.await_restart(killed)


def test_reward_model_of_a_job_serves_another_job(finished: Finished, tmp_path: Path) -> None:
    folder = _download(finished, "reward_model", tmp_path / "reward")
    shutil.rmtree(folder / "__pycache__", ignore_errors=True)
    spec = {**finished.spec, "name": "reuse", "reward": {"model": f"file://{folder}"}}
    del spec["sft"]
    spec["ppo"] = {**spec["ppo"], "steps": 2}

    job = finish(finished.stack, finished.client, finished.client.submit(spec))

    samples = finished.client.rollouts(job.id, step=1, limit=4)
    assert all(sample.score is not None for sample in samples)
