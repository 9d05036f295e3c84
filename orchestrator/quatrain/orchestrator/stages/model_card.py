"""The small files beside exported weights: README.md (model card) and training_manifest.json. No times in them."""

import json
from collections.abc import Sequence

import yaml

from quatrain.joblog.payloads import Metrics
from quatrain.orchestrator.plan import Plan
from quatrain.stages import Stage


def card_files(plan: Plan, stage: Stage, metrics: Metrics) -> dict[str, bytes]:
    """Return file contents by name, equal for equal jobs, however often they were interrupted.

    Times, throughput and logged values are left out for that.
    """
    lasting = {
        name: value
        for name, value in sorted(metrics.items())
        if not name.startswith(("time/", "throughput/", "reward/logged/"))
    }
    pinned = plan.pinned
    manifest = {
        "format": "quatrain/1",
        "stage": stage.name,
        "name": plan.spec.name,
        "seed": plan.seed,
        "base_model": pinned.model.to_json(),
        "data": {
            name: None if table is None else {"sha256": table.sha256, "rows": table.rows}
            for name, table in pinned.tables.items()
        },
        **({"sources": pinned.origins} if pinned.origins else {}),
        "metrics": lasting,
        "spec": plan.document.spec,
    }
    return {
        "README.md": _card(plan, stage, lasting).encode(),
        "training_manifest.json": (json.dumps(manifest, indent=2, sort_keys=True) + "\n").encode(),
    }


def _card(plan: Plan, stage: Stage, metrics: Metrics) -> str:
    rows = "\n".join(f"| {name} | {_number(value)} |" for name, value in metrics.items())
    spec = yaml.safe_dump(plan.document.spec, sort_keys=False)
    warnings = "".join(f"- {' '.join(warning.split())}\n" for warning in plan.document.warnings)
    warned = f"## Warnings of the submission\n{warnings}\n" if warnings else ""
    return f"""---
library_name: transformers
pipeline_tag: {stage.pipeline}
tags: [quatrain, rlhf, {stage}]
---
# {plan.spec.name}: {stage.title}

Made by Quatrain from base model `{plan.pinned.model.digest}` with seed {plan.seed}.
`training_manifest.json` names the data by sha256.

{warned}## Metrics of the last step
| metric | value |
|---|---|
{rows}
{_warnings(plan.document.warnings)}
## Resolved spec
```yaml
{spec}```
"""


def _warnings(warnings: Sequence[str]) -> str:
    """Return a section with what was said at submission; nothing where all was well."""
    if not warnings:
        return ""
    return "\n## Warnings at submission\n" + "".join(f"- {' '.join(text.split())}\n" for text in warnings)


def _number(value: float | None) -> str:
    return "null" if value is None else f"{value:.6g}"
