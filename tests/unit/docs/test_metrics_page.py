import re
from dataclasses import replace
from pathlib import Path

import torch
from tests.unit.docs.pages import ROOT, names, rows, section
from tests.unit.learner import stages
from tests.unit.models.tiny_models import save_tiny_model
from tests.unit.orchestrator.scenery import expected, made_of, make_plan

from quatrain.jobspec.sections import RewardSpec, SftSpec
from quatrain.learner.backends import Inputs
from quatrain.learner.backends.reward_model import RewardModelTrainer
from quatrain.learner.backends.sft import SftTrainer
from quatrain.orchestrator import __main__ as orchestrator  # registers what it tells Prometheus
from quatrain.orchestrator.stages.evaluation import eval_metrics
from quatrain.orchestrator.stages.step_metrics import StepClock, collected_metrics
from quatrain.stages import REWARD, SFT
from quatrain.telemetry.metrics import REGISTRY
from quatrain.v1 import common_pb2

ORCHESTRATOR = ROOT / "orchestrator" / "quatrain" / "orchestrator"


def documented(heading: str) -> set[str]:
    return names(section("docs/metrics.md", heading))


def added_by_train_rows() -> set[str]:
    return set(
        re.findall(r'metrics\["([^"]+)"\] =', (ORCHESTRATOR / "stages" / "training.py").read_text(encoding="utf-8"))
    )


def test_ppo_names_are_those_of_learner_and_owner(tmp_path: Path) -> None:
    trainer = stages.ppo_trainer(tmp_path)
    trained = trainer.train(1, stages.sealed(1), stages.never).metrics
    batch = expected(make_plan())
    logged = [common_pb2.NamedValue(name="politeness", value=1.0)]
    collected = collected_metrics([made_of(batch, batch.samples[0], 0, reward_metrics=logged)])
    produced = {*trained, *collected, *StepClock().metrics(dict(collected), 0.0)}

    # The batch has one reward term, `helpful`.
    generic = {
        "reward/helpful_mean": "reward/{term}_mean",
        "reward/logged/politeness": "reward/logged/{name}",
    }
    assert {generic.get(name, name) for name in produced} == documented("PPO")


def test_evaluation_names_are_those_of_the_owner() -> None:
    assert set(eval_metrics([], [])) == documented("Evaluation")


def test_sft_names_are_those_of_the_trainer(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    request = stages.stage_request(SFT, {})
    settings = SftSpec.model_validate({"data": "sha256:0"})
    inputs = Inputs(tmp_path / "model", data=stages.sft_table())
    trainer = SftTrainer(request, settings, inputs, torch.device("cpu"))

    produced = set(trainer.train(1, None, stages.never).metrics)

    assert produced | added_by_train_rows() == documented("SFT")


def test_reward_names_are_those_of_the_trainer(tmp_path: Path) -> None:
    save_tiny_model(tmp_path / "model")
    request = replace(stages.stage_request(REWARD, {}), total_steps=1)
    settings = RewardSpec.model_validate({"data": "sha256:0"})
    inputs = Inputs(tmp_path / "model", data=stages.pair_table(), held_out=stages.pair_table(seed=7))
    trainer = RewardModelTrainer(request, settings, inputs, torch.device("cpu"))

    produced = set(trainer.train(1, None, stages.never).metrics)

    assert produced | added_by_train_rows() == documented("Reward model")


def test_every_alias_is_one_of_a_metric_that_exists() -> None:
    assert names(section("docs/metrics.md", "Names elsewhere")) <= documented("PPO")


def test_every_metric_has_a_formula() -> None:
    for heading in ("PPO", "Evaluation", "SFT", "Reward model"):
        for name, formula, *_ in rows(section("docs/metrics.md", heading)):
            assert formula, name


def test_prometheus_names_and_labels_are_those_of_the_processes() -> None:
    assert orchestrator
    documented = {row[0].strip("`"): row[1] for row in rows(section("docs/metrics.md", "Prometheus"))}
    told = {
        metric.name + ("_total" if metric.type == "counter" else ""): REGISTRY._names_to_collectors[metric.name]
        for metric in REGISTRY.collect()
        if metric.name.startswith("quatrain_")
    }
    labels = {name: ", ".join(f"`{label}`" for label in each._labelnames) for name, each in told.items()}  # type: ignore[attr-defined]
    assert documented == labels
