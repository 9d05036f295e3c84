from typing import Any

import pytest

from quatrain.errors import InvalidSpec
from quatrain.jobspec import parse_spec
from quatrain.jobspec.habits import SECTIONS, TOOLS, counterpart, line_of
from quatrain.jobspec.parsing import field_paths

MINIMAL: dict[str, Any] = {"name": "j", "model": {"uri": "models://base"}, "reward": {"model": "models://rm"}}
# Fields whose last part a person names: a column, a metadata key.
OPEN = ("ppo.prompts.columns.", "metadata.")


def said(section: str, key: str) -> str:
    document = {**MINIMAL, "ppo": {"prompts": "p.jsonl", "steps": 5}}
    document[section] = {**document.get(section, {}), key: 1}
    with pytest.raises(InvalidSpec) as caught:
        parse_spec(document)
    return next(each.description for each in caught.value.violations if each.field == f"{section}.{key}")


@pytest.mark.parametrize(
    ("key", "field"),
    [
        ("batch_size", "ppo.prompts_per_step"),
        ("per_device_train_batch_size", "ppo.prompts_per_step"),
        ("learning_rate", "ppo.optimizer.policy_lr"),
        ("actor_learning_rate", "ppo.optimizer.policy_lr"),
        ("kl_coef", "ppo.kl.coef"),
        ("init_kl_coef", "ppo.kl.coef"),
        ("beta", "ppo.kl.coef"),
        ("cliprange", "ppo.clip.low and ppo.clip.high"),
        ("cliprange_value", "ppo.clip.value"),
        ("response_length", "ppo.generation.max_new_tokens"),
        ("max_response_length", "ppo.generation.max_new_tokens"),
        ("num_ppo_epochs", "ppo.optimizer.epochs"),
        ("epochs", "ppo.optimizer.epochs"),
        ("num_mini_batches", "ppo.optimizer.minibatches"),
        ("mini_batch_size", "ppo.optimizer.minibatches"),
        ("gamma", "ppo.advantage.gamma"),
        ("lam", "ppo.advantage.lam"),
        ("total_episodes", "ppo.steps"),
        ("num_generations", "ppo.samples_per_prompt"),
        ("temperature", "ppo.generation.temperature"),
        ("missing_eos_penalty", "ppo.generation.missing_eos_penalty"),
        ("bf16", "model.dtype"),
        ("report_to", "quatrain job metrics"),
        ("push_to_hub", "quatrain checkpoint download"),
        ("output_dir", "quatrain checkpoint download"),
        ("gradient_checkpointing", "the operator's"),
        ("gradient_accumulation_steps", "ppo.prompts_per_step"),
        ("vf_coef", "ppo.optimizer.value_lr"),
        ("whiten_rewards", "reward.scale"),
        ("lora_r", "trains all weights"),
        ("stop_token", "end-of-sequence token"),
    ],
)
def test_a_habit_gets_the_right_key(key: str, field: str) -> None:
    assert field in said("ppo", key)


@pytest.mark.parametrize(("key", "field"), [("num_train_epochs", "reward.epochs"), ("lr", "reward.learning_rate")])
def test_a_habit_in_another_stage_gets_that_stages_key(key: str, field: str) -> None:
    assert field in said("reward", key)


@pytest.mark.parametrize("tool", TOOLS)
def test_the_table_names_real_fields_and_says_why_where_there_is_none(tool: str) -> None:
    known = set(field_paths())
    for option, line in (*TOOLS[tool].items(), *SECTIONS[tool].items()):
        fields = (*line.fields, line.derived) if line.derived else line.fields
        assert all(field in known or field.startswith(OPEN) for field in fields), option
        assert fields or line.note, option


def test_options_of_one_section_share_a_line() -> None:
    assert line_of("openrlhf", "vllm.num_engines") is SECTIONS["openrlhf"]["vllm."]
    assert line_of("openrlhf", "actor.adam.lr") is counterpart("actor_learning_rate")
    assert line_of("verl", "nobody.knows") is None
