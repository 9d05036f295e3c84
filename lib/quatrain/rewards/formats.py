"""Rewards for a form: a pattern, tags, JSON that keeps a schema."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import regex

from quatrain.rewards.texts import texts_of

PATTERN_SECONDS = 1.0
"""Time for one pattern on one completion: some patterns take for ever on some texts."""


def pattern(completions: Sequence[Any], expression: str, whole: bool = False, **_: Any) -> list[float]:
    """Return 1 where the completion has a match of `expression`, or with `whole` is one from end to end; else 0.

    Raises ValueError for an expression that is none, or that takes longer than a second on a completion.
    """
    try:
        compiled = regex.compile(expression)
    except regex.error as error:
        raise ValueError(f"expression {expression!r} is no regular expression: {error}") from error
    search = compiled.fullmatch if whole else compiled.search
    found = []
    for text in texts_of(completions):
        try:
            found.append(float(search(text, timeout=PATTERN_SECONDS) is not None))
        except TimeoutError as error:
            raise ValueError(
                f"expression {expression!r} took longer than {PATTERN_SECONDS:g} s on {text[:60]!r}; make it simpler: "
                "no repeated group inside of a repeated group"
            ) from error
    return found


def format_tags(completions: Sequence[Any], tags: Sequence[str] = ("think", "answer"), **_: Any) -> list[float]:
    """Return 1 where the completion is `<think>...</think><answer>...</answer>`: each tag once, in order; else 0.

    White space between the parts does not count, any other text does. Raises ValueError without tags.
    """
    if isinstance(tags, str) or not tags or not all(tags):
        raise ValueError("give a list of tags: args: {tags: [think, answer]}")
    return [float(_has_tags(text.strip(), tags)) for text in texts_of(completions)]


def _has_tags(text: str, tags: Sequence[str]) -> bool:
    for tag in tags:
        opening, closing = f"<{tag}>", f"</{tag}>"
        if text.count(opening) != 1 or text.count(closing) != 1 or not text.startswith(opening):
            return False
        text = text.partition(closing)[2].lstrip()
    return not text


def json_schema(completions: Sequence[Any], schema: Mapping[str, Any] | bool = True, **_: Any) -> list[float]:
    """Return 1 where the completion is JSON that keeps `schema`, 0.5 where it is other JSON, 0 where it is none.

    Without a schema every JSON text gets 1. References lead to other parts of the schema only. Raises ValueError for a
    schema that is none.
    """
    import jsonschema
    import referencing

    try:
        kind = jsonschema.validators.validator_for(schema, default=jsonschema.Draft202012Validator)
        kind.check_schema(schema)
    except jsonschema.SchemaError as error:
        raise ValueError(f"the schema is no JSON schema: {error.message}") from error
    # With a registry of its own, the library never fetches what a reference names.
    validator = kind(schema, registry=referencing.Registry())
    try:
        validator.is_valid(None)
    except RecursionError as error:
        raise ValueError("the schema refers to itself without end") from error
    except referencing.exceptions.Unresolvable as error:
        raise ValueError(f"the schema names {error.ref!r}, which is no part of it") from error
    try:
        return [_validity(text, validator.is_valid) for text in texts_of(completions)]
    except referencing.exceptions.Unresolvable as error:
        raise ValueError(f"the schema names {error.ref!r}, which is no part of it") from error


def _validity(text: str, is_valid: Callable[[Any], bool]) -> float:
    try:
        value = json.loads(text, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return 0.0
    try:
        return 1.0 if is_valid(value) else 0.5
    except RecursionError:  # JSON that is nested this deep keeps no schema of anybody.
        return 0.5


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no JSON")
