"""Tables of the job spec: names, defaults and bounds from the pydantic sections, meanings from the proto's comments."""

import re
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from quatrain.jobspec.parsing import section_of
from quatrain.jobspec.refusals import REFUSED_KEYS
from quatrain.jobspec.sections import INT32_MAX, INT64_MAX, DataSpec, JobSpec, RewardSpec

SPEC_PROTO = Path(__file__).resolve().parent.parent / "proto" / "quatrain" / "v1" / "spec.proto"

# Defaults that depend on something else.
DERIVED_DEFAULTS = {
    "model.dtype": "`float32` on CPU, `bfloat16` on GPU",
    "reward.center": "`true` with `data`, else `false`",
    "ppo.generation.missing_eos_penalty": "`1.0`; `0.0` with `ignore_eos`",
    "ppo.kl.estimator": "`k1`; `k2` with `placement: loss`",
    "ppo.value_init": "`reward` where it is allowed, else `sft`",
}
# Fields that are checked and kept with the job, and that nothing acts on yet.
WITHOUT_EFFECT = ("resources",)
_WITHOUT_EFFECT_NOTE = "**Without effect in this version.**"

BOUNDS = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}

Comments = dict[tuple[str, str], str]


def spec_tables() -> str:
    """One table a section of the spec."""
    comments = proto_comments(SPEC_PROTO.read_text(encoding="utf-8"))
    parts = [_table("", JobSpec, comments)]
    sections = _sections(JobSpec, "")
    parts += [_table(path, section, comments) for path, section in sections]
    parts.append(
        _table("data set", DataSpec, comments, heading="A data set (`sft.data`, `reward.data`, `ppo.prompts`, ...)")
    )
    return "\n\n".join(parts)


def refused_keys() -> str:
    """Keys of other tools, with the reason that each is refused for."""
    by_reason: dict[str, list[str]] = {}
    for key, reason in REFUSED_KEYS.items():
        by_reason.setdefault(reason, []).append(f"`{key}`")
    return "\n".join(f"- {', '.join(keys)}: {reason}." for reason, keys in by_reason.items())


def proto_comments(text: str) -> Comments:
    """(message, field) to the comment above the field, on one line."""
    found: Comments = {}
    message, lines = "", list[str]()
    for line in text.splitlines():
        stripped = line.strip()
        if opened := re.match(r"message (\w+) \{", stripped):
            message, lines = opened[1], []
        elif stripped.startswith("//"):
            lines.append(stripped.removeprefix("//").strip())
        elif field := re.match(r"(?:optional |repeated )?[\w.<>, ]+ (\w+) = \d+;", stripped):
            found[message, field[1]] = " ".join(lines)
            lines = []
    return found


def _sections(parent: type[BaseModel], prefix: str) -> list[tuple[str, type[BaseModel]]]:
    """Dotted path and class of all sections, in the order of the spec; each class once, data sets left out."""
    found: list[tuple[str, type[BaseModel]]] = []
    for name, field in parent.model_fields.items():
        section = section_of(field.annotation)
        if section in (None, DataSpec) or (prefix and section is RewardSpec):
            continue
        assert section is not None, "checked above"
        found += [(prefix + name, section), *_sections(section, f"{prefix}{name}.")]
    return found


def _table(path: str, section: type[BaseModel], comments: Comments, heading: str = "") -> str:
    title = heading or (f"`{path}`" if path else "Top level")
    lines = [f"### {title}", "", "| field | allowed | default | meaning |", "|---|---|---|---|"]
    properties = section.model_json_schema()["properties"]
    for name, field in section.model_fields.items():
        full = f"{path}.{name}" if path else name
        note = f" {_WITHOUT_EFFECT_NOTE}" if full in WITHOUT_EFFECT else ""
        meaning = _meaning(comments[section.__name__, name]) + note
        lines.append(f"| `{name}` | {_allowed(properties[name])} | {_default(full, field)} | {meaning} |")
    return "\n".join(lines)


def _allowed(schema: dict[str, Any]) -> str:
    choices = [option for option in schema.get("anyOf", [schema]) if option.get("type") != "null"]
    text = " or ".join(_kind(option) for option in choices)
    return f"{text} or null" if len(choices) < len(schema.get("anyOf", [])) else text


def _kind(schema: dict[str, Any]) -> str:
    if "enum" in schema or "const" in schema:
        return ", ".join(f"`{value}`" for value in schema.get("enum", [schema.get("const")]))
    kind = schema.get("type")
    if kind in ("integer", "number"):
        word = "whole number" if kind == "integer" else "number"
        bounds = [
            f"{label} {schema[key]:g}"
            for key, label in (
                ("minimum", ">="),
                ("exclusiveMinimum", ">"),
                ("maximum", "<="),
                ("exclusiveMaximum", "<"),
            )
            if key in schema and abs(schema[key]) not in (INT32_MAX, INT64_MAX)
        ]
        return " ".join([word, ", ".join(bounds)]).strip()
    if kind == "object":
        values = "strings" if schema.get("additionalProperties") == {"type": "string"} else "JSON values"
        return f"{values} by name" + (f", at most {schema['maxProperties']}" if "maxProperties" in schema else "")
    if kind == "array":
        return "list"
    return {"boolean": "`true`, `false`", "string": "text"}.get(str(kind), "section")


def _default(path: str, field: Any) -> str:
    if path in DERIVED_DEFAULTS:
        return DERIVED_DEFAULTS[path]
    if field.is_required():
        return "**required**"
    if field.default is PydanticUndefined:
        return ""
    value = field.default
    if value is None:
        return "null"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`{list(value)}`"
    return f"`{value}`"


def _meaning(comment: str) -> str:
    """Return the comment without what other columns say."""
    sentences = re.split(r"(?<=\.)\s+(?=[A-Z`])", comment)
    kept = [each for each in sentences if not re.match(r"(Default|Required)\b", each)]
    return " ".join(kept).replace("|", "\\|")
