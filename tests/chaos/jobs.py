"""The small jobs that run under fault. Every job of a variant gives the same bits, whatever its id."""

import random
from pathlib import Path
from typing import Any

from tests.e2e.tasks import Spec, changed, pipeline, write_jsonl
from tests.integration.orchestrator.world import write_model

FORK_STEP = 3
"""The checkpoint that jobs are forked from."""
VARIANTS = ("ppo", "stale", "full", "full-stale")
"""PPO alone, PPO with generation one step ahead, and all three stages with either."""
REWARD = '''"""Scores by what is said, so that equal completions get equal scores."""


def count_a(completions, **_):
    return [float(text.count("a")) for text in completions]
'''


def specs(folder: Path, *, fake: bool) -> dict[str, Spec]:
    """The specs of all variants; what they name lies in `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return _fake_specs(folder) if fake else _torch_specs(folder)


def _fake_specs(folder: Path) -> dict[str, Spec]:
    write_model(folder / "base")
    draw = random.Random(5)

    def word(count: int) -> str:
        return "".join(draw.choice("abcde") for _ in range(count))

    (folder / "rewards.py").write_text(REWARD, encoding="utf-8")
    write_jsonl(folder / "prompts.jsonl", [{"prompt": word(3)} for _ in range(12)])
    write_jsonl(folder / "held_out.jsonl", [{"prompt": word(3)} for _ in range(4)])
    write_jsonl(folder / "sft.jsonl", [{"prompt": word(3), "completion": word(4)} for _ in range(12)])
    pairs = [{"prompt": word(3), "chosen": word(4), "rejected": word(5)} for _ in range(12)]
    write_jsonl(folder / "preferences.jsonl", pairs)
    ppo: Spec = {
        "name": "chaos",
        "seed": 7,
        "deterministic": True,
        "model": {"uri": f"file://{folder / 'base'}"},
        "reward": {"functions": [{"path": f"{folder / 'rewards.py'}:count_a"}]},
        "ppo": {
            "prompts": str(folder / "prompts.jsonl"),
            "eval_prompts": str(folder / "held_out.jsonl"),
            "eval_every": 3,
            "steps": 6,
            "prompts_per_step": 8,
            "chunk_size": 2,
            "generation": {"max_new_tokens": 6},
        },
        "checkpoint": {"every_steps": FORK_STEP},
        "limits": {"retries": 20},
    }
    stages: dict[str, Any] = {
        "sft": {"data": str(folder / "sft.jsonl"), "batch_size": 4},
        "reward": {"data": str(folder / "preferences.jsonl"), "batch_size": 4},
    }
    # The offset of the reward model takes 512 samples: fewer, larger chunks.
    return _variants(ppo, changed({**ppo, **stages}, ppo__chunk_size=8))


def _torch_specs(folder: Path) -> dict[str, Spec]:
    full = changed(
        pipeline(folder),
        ppo__steps=5,
        ppo__prompts_per_step=8,
        ppo__chunk_size=4,
        checkpoint__every_steps=FORK_STEP,
        limits__retries=20,
    )
    (folder / "rewards.py").write_text(REWARD.replace('"a"', '"s3"'), encoding="utf-8")
    alone = {name: section for name, section in full.items() if name != "sft"}
    alone["reward"] = {"functions": [{"path": f"{folder / 'rewards.py'}:count_a"}]}
    return _variants(alone, full)


def _variants(ppo: Spec, full: Spec) -> dict[str, Spec]:
    return {
        "ppo": ppo,
        "stale": changed(ppo, ppo__staleness=1),
        "full": full,
        "full-stale": changed(full, ppo__staleness=1),
    }
