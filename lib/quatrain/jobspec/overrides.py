"""`--set a.b=c`: single fields of a document, over the file."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from quatrain.errors import FieldViolation, InvalidSpec
from quatrain.jobspec.documents import load_value

# Sections that a document may give as the URI alone.
_URI_SECTIONS = ("data", "prompts", "eval_prompts")


def apply_overrides(document: Mapping[str, object], overrides: Sequence[str]) -> dict[str, Any]:
    """Return a copy of the document with each `dotted.path=VALUE` set, adding missing sections. Raises InvalidSpec."""
    changed = dict(copy.deepcopy(document))
    for text in overrides:
        path, value = _split(text)
        _set(changed, path.split("."), load_value(value), text)
    return changed


def split_overrides(overrides: Sequence[str]) -> dict[str, str]:
    """Return the text of each value by dotted path; of two for the same path the last. Raises InvalidSpec."""
    return dict(_split(text) for text in overrides)


def take_field(document: dict[str, Any], path: str, default: object) -> object:
    """Remove the field at a dotted path and return its value, or `default` where the document has none."""
    *sections, name = path.split(".")
    for section in sections:
        inner = document.get(section)
        if not isinstance(inner, dict):
            return default
        document = inner
    return document.pop(name, default)


def _split(text: str) -> tuple[str, str]:
    path, equals, value = text.partition("=")
    if not equals or not all(path.strip().split(".")):
        raise _refuse(text, f"{text!r} is not of the form dotted.path=value, such as ppo.kl.coef=0.1")
    return path.strip(), value


def _set(document: dict[str, object], keys: list[str], value: object, text: str) -> None:
    target: Any = document
    for position, key in enumerate(keys[:-1]):
        if isinstance(target, list):
            target = target[_index(target, key, text)]
        else:
            if key in _URI_SECTIONS and isinstance(target.get(key), str):
                target[key] = {"uri": target[key]}
            if target.get(key) is None:
                target[key] = {}
            target = target[key]
        if not isinstance(target, dict | list):
            raise _refuse(".".join(keys), f"{'.'.join(keys[: position + 1])} is {target!r}, which has no fields")
    if isinstance(target, list):
        target[_index(target, keys[-1], text)] = value
    else:
        target[keys[-1]] = value


def _index(items: Sequence[object], key: str, text: str) -> int:
    if not key.isdecimal() or int(key) >= len(items):
        raise _refuse(text, f"{key!r} is not a position in a list of {len(items)}; positions start at 0")
    return int(key)


def _refuse(field: str, description: str) -> InvalidSpec:
    return InvalidSpec(f"--set: {description}.", [FieldViolation(field, description)])
