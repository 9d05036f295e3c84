"""JSON as Python values: the content of a file, a log or a message before it is checked."""

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


def as_list(value: JsonValue) -> list[JsonValue]:
    """Return a JSON value that must be a list. Raises TypeError when it is none."""
    if not isinstance(value, list):
        raise TypeError(f"{type(value).__name__} is not a list")
    return value


def object_at(document: JsonObject, key: str) -> JsonObject:
    """Return the object under the key; an empty one when the key is absent or holds something else."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}
