from pathlib import Path
from typing import Any

import pytest

from quatrain.jobspec import apply_overrides, load_yaml, parse_spec
from quatrain.jobspec.parsing import field_paths
from quatrain.jobspec.usual_ranges import USUAL, range_warnings

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*/spec.yaml"))
BASE: dict[str, Any] = {
    "name": "j",
    "model": {"uri": "models://base"},
    "sft": {"data": "s.jsonl"},
    "reward": {"data": "r.jsonl"},
    "ppo": {"prompts": "p.jsonl", "steps": 5},
}


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.parent.name)
def test_the_examples_are_silent(file: Path) -> None:
    assert range_warnings(parse_spec(load_yaml(file))) == []


def test_the_defaults_are_silent_and_the_fields_exist() -> None:
    assert range_warnings(parse_spec(BASE)) == []
    assert {usual.field for usual in USUAL} <= set(field_paths())


@pytest.mark.parametrize(
    ("override", "recipes"),
    [
        ("ppo.optimizer.policy_lr=10", "5e-7 to 1e-5"),
        ("sft.learning_rate=1", "1e-6 to 1e-4"),
        ("reward.learning_rate=0.5", "1e-6 to 1e-4"),
        ("ppo.kl.coef=0", "0.001 to 0.2"),
        ("ppo.clip.high=5", "0.2 to 0.3"),
        ("ppo.generation.temperature=20", "0.6 to 1.0"),
        ("ppo.generation.temperature=0.01", "0.6 to 1.0"),
        ("ppo.optimizer.epochs=50", "1 to 4"),
        ("ppo.prompts_per_step=2", "raise ppo.prompts_per_step"),
    ],
)
def test_a_value_far_outside_is_named_with_the_recipes(override: str, recipes: str) -> None:
    (warning,) = range_warnings(parse_spec(apply_overrides(BASE, [override])))

    assert override.split("=")[0].split("_")[0] in warning
    assert recipes in warning


def test_a_frozen_model_and_a_reward_that_is_not_trained_are_silent() -> None:
    frozen = apply_overrides(BASE, ["ppo.optimizer.policy_lr=0"])
    assert range_warnings(parse_spec(frozen)) == []
    assert range_warnings(parse_spec({**BASE, "reward": {"model": "models://rm"}})) == []
