"""Makes a validated JobSpec of a document (nested dicts); its errors name field, value and what is allowed."""

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from quatrain.errors import FieldViolation, InvalidSpec
from quatrain.jobspec import rules
from quatrain.jobspec.habits import counterpart
from quatrain.jobspec.refusals import REFUSED_KEYS
from quatrain.jobspec.sections import JobSpec

_TYPES = {
    "int_type": "a whole number",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "a string",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
    "tuple_type": "a list",
    "list_type": "a list",
    "finite_number": "a finite number",
}
_PATTERNS = {
    "name": "1 to 63 of a-z, 0-9 and '-'",
    "pool": "1 to 63 of a-z, 0-9 and '-', not starting with '-'",
    "path": "'module:function' or 'file.py:function'",
    "service": "'host:port'",
    "code_digest": "64 lower-case hex digits",
}


def parse_spec(document: Mapping[str, object]) -> JobSpec:
    """Return the validated spec with all defaults. Raises InvalidSpec with one violation for each mistake."""
    if not isinstance(document, dict):
        raise InvalidSpec(f"The job spec must be a mapping of keys, not {_show(document)}.")
    try:
        spec = JobSpec.model_validate(document)
    except ValidationError as error:
        raise invalid_spec(_violation(detail) for detail in error.errors(include_url=False)) from None
    found = rules.violations(spec)
    if found:
        raise invalid_spec(found)
    return spec


def invalid_spec(violations: Iterator[FieldViolation] | list[FieldViolation]) -> InvalidSpec:
    """Return one InvalidSpec whose message lists every violation."""
    found = list(violations)
    lines = "".join(f"\n  {item.field}: {item.description}" for item in found)
    return InvalidSpec(f"The job spec has {len(found)} error{'s' if len(found) > 1 else ''}:{lines}", found)


def _violation(detail: ErrorDetails) -> FieldViolation:
    location = detail["loc"]
    path = ".".join(str(part) for part in location)
    if detail["type"] == "extra_forbidden":
        return FieldViolation(path, _unknown_key(location, detail["input"]))
    return FieldViolation(path, _description(detail))


def _description(detail: ErrorDetails) -> str:
    kind, context, shown = detail["type"], detail.get("ctx", {}), _show(detail["input"])
    if kind == "missing":
        return "is required"
    if kind in _TYPES:
        hint = " (remove the quotes)" if _is_quoted_number(kind, detail["input"]) else ""
        return f"{shown} is not {_TYPES[kind]}{hint}"
    if kind in ("greater_than", "greater_than_equal", "less_than", "less_than_equal"):
        words = {"greater_than": "above", "greater_than_equal": "at least", "less_than": "below"}
        bound = next(iter(context.values()))
        text = str(bound) if isinstance(bound, int) else f"{bound:g}"
        return f"{shown} is out of bounds: must be {words.get(kind, 'at most')} {text}"
    if kind == "literal_error":
        return _wrong_choice(detail["input"], str(context["expected"]))
    if kind == "string_pattern_mismatch":
        return f"{shown} is not allowed: must be {_PATTERNS.get(str(detail['loc'][-1]), context['pattern'])}"
    if kind == "string_too_short":
        return f"{shown} is empty"
    if kind in ("too_long", "too_short"):
        length = context["max_length"] if kind == "too_long" else context["min_length"]
        return f"{shown} has the wrong length: {'at most' if kind == 'too_long' else 'at least'} {length} are allowed"
    return f"{shown}: {detail['msg']}"


def _is_quoted_number(kind: str, value: object) -> bool:
    if kind not in ("int_type", "float_type") or not isinstance(value, str):
        return False
    return value.replace(".", "", 1).replace("-", "").replace("e", "", 1).isdigit()


def _wrong_choice(value: object, expected: str) -> str:
    choices = [part.strip(" '") for part in expected.replace(" or ", ", ").split(",")]
    near = difflib.get_close_matches(str(value), choices, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{_show(value)} is not allowed: must be {expected}{hint}"


def _unknown_key(location: tuple[int | str, ...], value: object) -> str:
    key, given = str(location[-1]), f"unknown key (value {_show(value)})"
    if key in REFUSED_KEYS:
        return f"{_show(value)} is refused: {REFUSED_KEYS[key]}"
    parent = location[:-1]
    siblings = list(_section_at(parent).model_fields)
    near = difflib.get_close_matches(key, siblings, n=1, cutoff=0.6)
    # The gold reward repeats the fields of the reward; nobody means it by a bare word.
    elsewhere = [path for path in field_paths() if path.rpartition(".")[2] == key and ".eval_gold." not in path]
    # A field of the same stage is meant before one of another, whatever its section.
    here = [path for path in elsewhere if path.startswith(f"{location[0]}.")]
    habit = counterpart(key)
    if habit is not None and not here:
        return f"{given}; {habit.hint(str(location[0]))}"
    meant = here[:1] or [".".join(map(str, (*parent, *near)))] * bool(near) or elsewhere[:1]
    if meant:
        return f"{given}; did you mean {meant[0]!r}?"
    return f"{given}; allowed here: {', '.join(siblings)}"


def field_paths(section: type[BaseModel] = JobSpec, prefix: str = "") -> list[str]:
    """Return the dotted paths of all fields, each section before its fields, without positions in lists."""
    paths = []
    for name, field in section.model_fields.items():
        paths.append(prefix + name)
        inner = section_of(field.annotation)
        if inner is not None:
            paths += field_paths(inner, f"{prefix}{name}.")
    return paths


def section_of(annotation: Any) -> type[BaseModel] | None:
    """Return the section class inside an annotation such as `SftSpec | None` or `tuple[RewardFunctionSpec, ...]`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    for argument in get_args(annotation):
        found = section_of(argument)
        if found is not None:
            return found
    return None


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    section: type[BaseModel] = JobSpec
    for part in location:
        if isinstance(part, str):
            section = section_of(section.model_fields[part].annotation) or section
    return section


def _show(value: object) -> str:
    """Return the value as JSON, cut to 80 characters."""
    text = json.dumps(value, default=repr, ensure_ascii=False)
    return text if len(text) <= 80 else text[:77] + "..."
