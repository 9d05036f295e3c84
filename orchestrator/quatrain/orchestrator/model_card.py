"""The small files beside exported weights: README.md (model card) and training_manifest.json. No times in them."""

import json
from typing import Any

import yaml

from quatrain.orchestrator.plan import Plan

TITLES = {"sft": "supervised fine-tuned model", "reward": "reward model", "ppo": "policy trained with PPO"}
PIPELINES = {"sft": "text-generation", "reward": "text-classification", "ppo": "text-generation"}


def card_files(plan: Plan, stage: str, metrics: dict[str, Any]) -> dict[str, bytes]:
    """File name to contents. Equal for equal jobs, broken or not: times, throughput and logged values are left out."""
    lasting = {
        name: value
        for name, value in sorted(metrics.items())
        if not name.startswith(("time/", "throughput/", "reward/logged/")) and name not in ("step", "attempt", "stage")
    }
    manifest = {
        "format": "quatrain/1",
        "stage": stage,
        "name": plan.spec["name"],
        "seed": plan.seed,
        "base_model": plan.model.to_json(),
        "data": {
            name: None if table is None else {"sha256": table.sha256, "rows": table.rows}
            for name, table in (
                ("sft", plan.sft_data),
                ("reward", plan.reward_data),
                ("reward_held_out", plan.reward_held_out),
                ("prompts", plan.prompts),
                ("eval_prompts", plan.eval_prompts),
            )
        },
        "metrics": lasting,
        "spec": plan.spec,
    }
    return {
        "README.md": _card(plan, stage, lasting).encode(),
        "training_manifest.json": (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode(),
    }


def _card(plan: Plan, stage: str, metrics: dict[str, Any]) -> str:
    rows = "\n".join(f"| {name} | {_number(value)} |" for name, value in metrics.items())
    spec = yaml.safe_dump(plan.spec, sort_keys=False)
    return f"""---
library_name: transformers
pipeline_tag: {PIPELINES[stage]}
tags: [quatrain, rlhf, {stage}]
---
# {plan.spec["name"]}: {TITLES[stage]}

Made by Quatrain from base model `{plan.model.digest}` with seed {plan.seed}.
`training_manifest.json` names the data by sha256.

## Metrics of the last step
| metric | value |
|---|---|
{rows}

## Resolved spec
```yaml
{spec}```
"""


def _number(value: Any) -> str:
    return "null" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
