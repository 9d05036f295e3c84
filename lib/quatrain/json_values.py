"""JSON as Python values: what a file, a log or a message holds before anybody has checked it."""

from typing import Any, TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


def as_int(value: Any) -> int:
    """Return a JSON value as `int` reads it. Raises TypeError or ValueError for what is no number."""
    return int(value)


def as_object(value: JsonValue) -> JsonObject:
    """Return a JSON value that must be an object. Raises TypeError when it is none."""
    if not isinstance(value, dict):
        raise TypeError(f"{type(value).__name__} is not an object")
    return value
