"""Specs of tiny jobs and the folders that they name."""

import copy
import json
import random
import shutil
from pathlib import Path
from typing import Any

import yaml
from tests.closed_form.models import TinyModel, build

REWARDS = Path(__file__).parents[1] / "closed_form" / "rewards.py"
Spec = dict[str, Any]


def count_symbol(folder: Path, model: TinyModel | None = None) -> Spec:
    """Task A in little: six symbols, four tokens, 64 prompts a step, 6 steps. Paths are absolute."""
    build(folder / "base", model or TinyModel(6))
    shutil.copy(REWARDS, folder / "rewards.py")
    write_jsonl(folder / "prompts.jsonl", [{"prompt": f"s1 s{i}", "topic": f"t{i}"} for i in range(6)])
    write_jsonl(folder / "held_out.jsonl", [{"prompt": f"s2 s{i}", "topic": f"h{i}"} for i in range(6)])
    return {
        "name": "count-symbol",
        "seed": 7,
        "deterministic": True,
        "model": {"uri": f"file://{folder / 'base'}"},
        "reward": {"functions": [{"path": f"{folder / 'rewards.py'}:count_symbol"}]},
        "ppo": {
            "prompts": str(folder / "prompts.jsonl"),
            "steps": 6,
            "prompts_per_step": 64,
            "chunk_size": 16,
            "max_prompt_length": 8,
            "generation": {"max_new_tokens": 4, "ignore_eos": True},
            "kl": {"coef": 0.5},
            "optimizer": {
                "policy_lr": 1.0e-3,
                "value_lr": 3.0e-3,
                "epochs": 2,
                "minibatches": 2,
                "microbatch_tokens": 4096,
            },
        },
        "checkpoint": {"every_steps": 2},
    }


def pipeline(folder: Path) -> Spec:
    """SFT, reward model and PPO in little: a dozen steps each. People here prefer answers with many s3."""
    build(folder / "base", TinyModel(12, eos_id=11, pad_id=2, head_std=0.02))
    draw = random.Random(5)

    def symbols(count: int, among: str = "0123456789") -> str:
        return " ".join(f"s{draw.choice(among)}" for _ in range(count))

    prompts = [symbols(3) for _ in range(48)]
    write_jsonl(folder / "sft.jsonl", [{"prompt": p, "completion": symbols(draw.randint(2, 6))} for p in prompts * 2])
    pairs = [{"prompt": p, "chosen": symbols(4, "3334"), "rejected": symbols(4, "0124567")} for p in prompts * 2]
    write_jsonl(folder / "preferences.jsonl", pairs)
    write_jsonl(folder / "prompts.jsonl", [{"prompt": p} for p in prompts])
    return {
        "name": "pipeline",
        "seed": 3,
        "deterministic": True,
        "model": {"uri": f"file://{folder / 'base'}"},
        "sft": {"data": str(folder / "sft.jsonl"), "batch_size": 8, "learning_rate": 3.0e-3},
        "reward": {
            "data": str(folder / "preferences.jsonl"),
            "batch_size": 8,
            "learning_rate": 3.0e-3,
            "held_out_share": 0.1,
        },
        "ppo": {
            "prompts": str(folder / "prompts.jsonl"),
            "steps": 12,
            "prompts_per_step": 32,
            "chunk_size": 16,
            "max_prompt_length": 8,
            "generation": {"max_new_tokens": 8},
            "optimizer": {"policy_lr": 1.0e-3, "value_lr": 3.0e-3},
        },
        "checkpoint": {"every_steps": 4},
    }


def changed(spec: Spec, **values: Any) -> Spec:
    """A copy with fields set by path, `__` for the dot: `ppo__kl__coef=0.1`."""
    copied = copy.deepcopy(spec)
    for path, value in values.items():
        *sections, key = path.split("__")
        target = copied
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return copied


def write_spec(path: Path, spec: Spec) -> Path:
    path.write_text(yaml.safe_dump(spec, sort_keys=False), encoding="utf-8")
    return path


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
