"""Values of single fields, checked. A wrong one raises BadRow, which drops the row and no more."""

import json
import math

from quatrain.data.records import Row

HH_MARK = "\n\nAssistant:"
MAX_DEPTH = 64


class BadRow(Exception):
    """The row cannot be used; the message is the reason."""


def text(row: Row, column: str) -> str:
    """Return the column as a string."""
    value = present(row, column)
    if not isinstance(value, str):
        raise BadRow(f"{column} must be text, not {kind_of(value)}")
    return encodable(value, column)


def split_transcript(value: str, column: str) -> tuple[str, str]:
    """Split an hh-rlhf transcript at its last "\\n\\nAssistant:": (prompt with the mark, the answer after it)."""
    head, mark, tail = value.rpartition(HH_MARK)
    if not mark:
        raise BadRow(f'{column} has no "\\n\\nAssistant:"')
    if not head:
        raise BadRow(f"{column} has nothing before the assistant's first answer")
    if "\n\nHuman:" in tail:
        raise BadRow(f"{column} ends on a human turn, so there is no last answer")
    if not tail.strip():
        raise BadRow(f"the last answer in {column} is empty")
    return head + mark, tail


def number(value: object, column: str) -> float:
    """Return a finite number, from a text too, as CSV has it. Raises BadRow."""
    try:
        found = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):
        found = math.nan
    if not math.isfinite(found):
        raise BadRow(f"{column} must be a number, not {value!r:.40}")
    return found


def margin(row: Row) -> float | None:
    """Return the optional margin, a finite number from 0. Raises BadRow."""
    value = row.get("margin")
    if value is None or value == "":
        return None
    try:
        found = number(value, "margin")
    except BadRow:
        found = -1.0
    if found < 0:
        raise BadRow(f"margin must be a number from 0, not {value!r:.40}")
    return found


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


def present(row: Row, column: str) -> object:
    """Return the value. Raises BadRow when it is absent or null."""
    value = row.get(column)
    if value is None:
        raise BadRow(f"{column} is missing")
    return value


def encodable(value: str, where: str) -> str:
    """Return the text. Raises BadRow when it cannot be written as UTF-8."""
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise BadRow(f"{where} holds half a surrogate pair, which is no character") from None
    return value


def kind_of(value: object) -> str:
    """Return the kind of a value in words."""
    if value is None:
        return "null"
    names = {bool: "a boolean", int: "a number", float: "a number", str: "text", list: "a list", dict: "a mapping"}
    return names.get(type(value), f"a {type(value).__name__}")
