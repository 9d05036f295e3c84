from pathlib import Path

import pytest

from quatrain.errors import InvalidSpec
from quatrain.jobspec import JobSpec, parse_spec
from quatrain.jobspec.importing import FILL_IN, Imported, import_options
from quatrain.jobspec.options import read_options, shell_options

TRL_YAML = """
model_name_or_path: org/tiny
reward_model_path: org/rm
dataset_name: org/prompts
per_device_train_batch_size: 8
gradient_accumulation_steps: 4
num_mini_batches: 2
num_ppo_epochs: 3
total_episodes: 640
learning_rate: 3e-6
kl_coef: 0.05
cliprange: 0.2
cliprange_value: 0.1
response_length: 53
temperature: 0.7
missing_eos_penalty: 1.0
gamma: 1.0
lam: 0.95
vf_coef: 0.1
whiten_rewards: false
bf16: true
report_to: wandb
output_dir: out
push_to_hub: true
lr_scheduler_type: linear
warmup_ratio: 0.1
surprise: 3
"""
OPENRLHF_SH = """#!/bin/bash
set -x
LR=5e-7
ray job submit --address="http://127.0.0.1:8265" -- python3 -m openrlhf.cli.train_ppo_ray \\
   --pretrain org/sft-model \\
   --reward_pretrain org/rm \\
   --prompt_data org/prompts --input_key context_messages --apply_chat_template \\
   --rollout_batch_size 1024 --train_batch_size 128 --n_samples_per_prompt 1 \\
   --max_samples 10000 --max_epochs 1 --num_episodes 1 \\
   --prompt_max_len 1024 --generate_max_len 512 \\
   --actor_learning_rate $LR --critic_learning_rate 9e-6 \\
   --init_kl_coef 0.01 --eps_clip_low_high 0.2 0.3 --value_clip 0.5 --lambd 0.95 \\
   --save_steps -1 --zero_stage 3 --bf16 --top_p 0.9 --use_wandb $TOKEN  # the end
"""
OPENRLHF_DOTTED = "python -m openrlhf.cli.train_ppo_ray --actor.adam.lr 5e-7 --rollout.batch_size 64 --vllm.x 2"
VERL_SH = """
python3 -m verl.trainer.main_ppo \\
  algorithm.adv_estimator=gae algorithm.use_kl_in_reward=True algorithm.kl_ctrl.kl_coef=0.001 \\
  data.train_files=$HOME/gsm8k/train.parquet data.train_batch_size=256 data.max_prompt_length=512 \\
  data.max_response_length=256 data.truncation='error' \\
  actor_rollout_ref.model.path=org/tiny actor_rollout_ref.actor.optim.lr=1e-6 \\
  actor_rollout_ref.actor.ppo_mini_batch_size=64 actor_rollout_ref.rollout.n=4 \\
  actor_rollout_ref.rollout.name=vllm critic.optim.lr=1e-5 \\
  custom_reward_function.path=rewards.py custom_reward_function.name=score \\
  +trainer.total_epochs=15 trainer.save_freq=20 trainer.logger='["console"]'
"""


def imported(tool: str, text: str, tmp_path: Path, suffix: str = ".sh") -> tuple[Imported, JobSpec]:
    file = tmp_path / f"options{suffix}"
    file.write_text(text)
    made = import_options(tool, read_options(file))
    return made, parse_spec(made.document)


def test_trl_options_become_a_spec(tmp_path: Path) -> None:
    made, spec = imported("trl", TRL_YAML, tmp_path, ".yaml")

    assert (spec.model.uri, spec.model.dtype, spec.reward.model) == ("hf://org/tiny", "bfloat16", "hf://org/rm")
    assert (spec.ppo.prompts.uri, spec.ppo.prompts_per_step, spec.ppo.steps) == ("hf://datasets/org/prompts", 32, 20)
    assert (spec.ppo.optimizer.policy_lr, spec.ppo.optimizer.epochs, spec.ppo.optimizer.minibatches) == (3e-6, 3, 2)
    assert (spec.ppo.clip.low, spec.ppo.clip.high, spec.ppo.clip.value) == (0.2, 0.2, 0.1)
    assert (spec.ppo.generation.max_new_tokens, spec.ppo.generation.temperature) == (53, 0.7)
    assert spec.ppo.optimizer.warmup_steps == 2
    left = "\n".join(made.left_out)
    for option in ("vf_coef", "report_to", "output_dir", "push_to_hub", "surprise", "whiten_rewards"):
        assert f"{option}: " in left
    assert made.to_fill_in == []


def test_openrlhf_script_becomes_a_spec(tmp_path: Path) -> None:
    made, spec = imported("openrlhf", OPENRLHF_SH, tmp_path)

    assert (spec.model.uri, spec.ppo.prompts.columns) == ("hf://org/sft-model", {"prompt": "context_messages"})
    assert (spec.ppo.prompts_per_step, spec.ppo.optimizer.minibatches, spec.ppo.steps) == (1024, 8, 10)
    assert (spec.ppo.optimizer.policy_lr, spec.ppo.optimizer.value_lr) == (5e-7, 9e-6)
    assert (spec.ppo.clip.low, spec.ppo.clip.high, spec.ppo.clip.value) == (0.2, 0.3, 0.5)
    assert (spec.ppo.max_prompt_length, spec.ppo.generation.max_new_tokens) == (1024, 512)
    assert spec.checkpoint.every_steps == 20
    left = "\n".join(made.left_out)
    assert "top_p: it changes the distribution" in left
    assert "shell variable" in left
    assert "address" not in left


def test_openrlhf_names_with_dots_are_the_same(tmp_path: Path) -> None:
    made, spec = imported("openrlhf", OPENRLHF_DOTTED, tmp_path)

    assert (spec.ppo.optimizer.policy_lr, spec.ppo.prompts_per_step, spec.model.uri) == (5e-7, 64, FILL_IN)
    assert any("operator" in line for line in made.left_out)
    assert [line.split(",")[0] for line in made.to_fill_in] == [
        "ppo.steps",
        "reward.model",
        "model.uri",
        "ppo.prompts.uri",
    ]


def test_verl_overrides_become_a_spec(tmp_path: Path) -> None:
    made, spec = imported("verl", VERL_SH, tmp_path)

    assert (spec.ppo.kl.coef, spec.ppo.samples_per_prompt, spec.ppo.optimizer.minibatches) == (0.001, 4, 4)
    assert (spec.ppo.optimizer.policy_lr, spec.ppo.optimizer.value_lr) == (1e-6, 1e-5)
    assert [each.path for each in spec.reward.functions] == ["rewards.py:score"]
    assert (spec.ppo.truncate_prompt, spec.checkpoint.every_steps) == ("refuse", 20)
    assert any(line.startswith("ppo.steps") and "total_epochs" in line for line in made.to_fill_in)
    assert any("data.train_files" in line and "shell variable" in line for line in made.left_out)


def test_verl_yaml_is_read_as_its_overrides_are(tmp_path: Path) -> None:
    text = (
        "algorithm: {kl_ctrl: {kl_coef: 0.002}, use_kl_in_reward: false}\ndata: {train_files: [a.parquet, b.parquet]}\n"
    )

    made, spec = imported("verl", text, tmp_path, ".yaml")

    assert (spec.ppo.kl.coef, spec.ppo.prompts.uri) == (0.0, "a.parquet")
    assert any("b.parquet" in line for line in made.left_out)


@pytest.mark.parametrize("tool", ["trl", "openrlhf", "verl"])
def test_every_option_is_accounted_for(tool: str, tmp_path: Path) -> None:
    text, suffix = {"trl": (TRL_YAML, ".yaml"), "openrlhf": (OPENRLHF_SH, ".sh"), "verl": (VERL_SH, ".sh")}[tool]
    made, _ = imported(tool, text, tmp_path, suffix)
    said = "\n".join([*made.became, *made.left_out, *made.to_fill_in])

    for option in made.options:
        assert option.rpartition(".")[2] in said, option


def test_what_a_spec_refuses_is_left_out_and_named() -> None:
    made = import_options("trl", {"gamma": 3.0, "kl_estimator": "k3", "num_mini_batches": 1, "learning_rate": "5e-6"})

    assert parse_spec(made.document).ppo.optimizer.policy_lr == 5e-6
    assert any(line.startswith("ppo.advantage.gamma: 3.0 is out of bounds") for line in made.left_out)
    assert any(line.startswith("ppo.kl.estimator") for line in made.left_out)


@pytest.mark.parametrize("text", ["", "just some words\n", "--open 'quote"])
def test_a_file_without_options_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "o.sh").write_text(text)

    with pytest.raises(InvalidSpec, match=r"o\.sh"):
        read_options(tmp_path / "o.sh")


def test_defaults_of_shell_variables_count() -> None:
    assert shell_options("A=3\nrun.py --seed ${A} --lam ${B:-0.9}") == {"seed": 3, "lam": 0.9}
