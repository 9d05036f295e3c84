"""Values of single fields, checked. A wrong one raises BadRow, which drops the row and no more."""

import json
import math

from quatrain.data.records import Prompt, Row

HH_MARK = "\n\nAssistant:"
MAX_DEPTH = 64
_ROLES = ("system", "user", "assistant", "tool", "developer")


class BadRow(Exception):
    """The row cannot be used; the message is the reason."""


def text(row: Row, column: str) -> str:
    """Return the column as a string."""
    value = _present(row, column)
    if not isinstance(value, str):
        raise BadRow(f"{column} must be text, not {_kind(value)}")
    return _encodable(value, column)


def prompt(row: Row, column: str = "prompt") -> Prompt:
    """Return the column as a non-empty text or as messages."""
    value = _present(row, column)
    if isinstance(value, list):
        return messages(value, column)
    found = text(row, column)
    if not found:
        raise BadRow(f"{column} is empty")
    return found


def messages(value: object, column: str) -> list[dict[str, str]]:
    """Return a list of messages with role and content only."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} must be a list of at least one message, not {_kind(value)}")
    return [_message(item, f"{column}[{position}]") for position, item in enumerate(value)]


def _message(value: object, where: str) -> dict[str, str]:
    if not isinstance(value, dict):
        raise BadRow(f"{where} must be a message with role and content, not {_kind(value)}")
    role, content = value.get("role"), value.get("content")
    if role not in _ROLES:
        raise BadRow(f"{where}.role must be one of {', '.join(_ROLES)}, not {role!r:.40}")
    if not isinstance(content, str):
        raise BadRow(f"{where}.content must be text, not {_kind(content)}")
    others = [key for key, item in value.items() if key not in ("role", "content") and item is not None]
    if others:
        raise BadRow(f"{where} has the field {others[0]!r}; only role and content are read")
    return {"role": str(role), "content": _encodable(content, where)}


def answer(row: Row, column: str) -> str:
    """Return a completion: a text, or a list of one assistant message."""
    value = _present(row, column)
    if isinstance(value, list):
        return only_assistant(messages(value, column), column)
    return text(row, column)


def only_assistant(found: list[dict[str, str]], column: str) -> str:
    """Return the content of the one assistant message that the list must be."""
    if len(found) != 1 or found[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in found) or "nothing"
        raise BadRow(f"{column} must be one assistant message, it is {roles}")
    return found[0]["content"]


def split_transcript(value: str, column: str) -> tuple[str, str]:
    """Split an hh-rlhf transcript at its last "\\n\\nAssistant:": (prompt with the mark, the answer after it)."""
    head, mark, tail = value.rpartition(HH_MARK)
    if not mark:
        raise BadRow(f'{column} has no "\\n\\nAssistant:"')
    if not head:
        raise BadRow(f"{column} has nothing before the assistant's first answer")
    return head + mark, tail


def margin(row: Row) -> float | None:
    """Return the optional margin, a finite number from 0."""
    value = row.get("margin")
    if value is None or value == "":
        return None
    try:
        number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number) or number < 0:
        raise BadRow(f"margin must be a number from 0, not {value!r:.40}")
    return number


def json_columns(row: Row, without: tuple[str, ...]) -> dict[str, object]:
    """Return the other columns, which must be JSON values."""
    extra = {name: value for name, value in row.items() if name not in without}
    _check_depth(extra, MAX_DEPTH)
    try:
        json.dumps(extra, allow_nan=False, ensure_ascii=False).encode("utf-8")
    except (TypeError, ValueError, RecursionError) as error:
        raise BadRow(f"a column cannot be handed to reward functions as JSON: {error}") from None
    return extra


def _check_depth(value: object, levels: int) -> None:
    if levels < 0:
        raise BadRow(f"a column is nested more than {MAX_DEPTH} levels deep")
    if isinstance(value, dict | list | tuple):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_depth(inner, levels - 1)


def _present(row: Row, column: str) -> object:
    value = row.get(column)
    if value is None:
        raise BadRow(f"{column} is missing")
    return value


def _encodable(value: str, where: str) -> str:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{where} holds half a surrogate pair, which is no character") from None
    return value


def _kind(value: object) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")
