"""JSON as Python values: the content of a file, a log or a message before it is checked."""

from typing import TypeAlias

JsonValue: TypeAlias = "bool | int | float | str | list[JsonValue] | dict[str, JsonValue] | None"
JsonObject: TypeAlias = dict[str, JsonValue]


def object_at(document: JsonObject, key: str) -> JsonObject:
    """Return the object under the key; an empty one when the key is absent or holds something else."""
    value = document.get(key)
    return value if isinstance(value, dict) else {}
