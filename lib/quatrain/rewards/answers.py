"""Rewards for the right answer, which stands in a column of the prompts."""

import math
import re
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

from quatrain.rewards.texts import column_of, texts_of

NUMBER = re.compile(r"(?:(?<![\d.])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d{1,3})?|[-+]?\.\d+")
"""A number as people write it: 1,234.5 or -3e-2, but 3 in 5-3."""


def exact_match(
    completions: Sequence[Any], column: str = "answer", ignore_case: bool = False, **columns: Any
) -> list[float | None]:
    """Return 1 where the completion is the text in `column`, else 0; None where the column is empty.

    White space at the ends, and how much there is between words, do not count. Raises ValueError without the column.
    """
    fold = str.casefold if ignore_case else str
    expected = column_of(columns, column)
    pairs = zip(texts_of(completions), expected, strict=True)
    return [None if right is None else float(_words(fold(text)) == _words(fold(str(right)))) for text, right in pairs]


def _words(text: str) -> list[str]:
    return text.split()


def numeric_match(
    completions: Sequence[Any],
    column: str = "answer",
    relative: float = 1e-6,
    absolute: float = 0.0,
    **columns: Any,
) -> list[float | None]:
    """Return 1 where the last number of the completion is the last one in `column`, else 0.

    Two numbers are the same within `relative` or `absolute`. A completion without a number gets 0; None where the
    column has none. Raises ValueError without the column.
    """
    expected = [_last_number(str(right)) if right is not None else None for right in column_of(columns, column)]
    given = [_last_number(text) for text in texts_of(completions)]
    return [
        None
        if right is None
        else float(one is not None and math.isclose(one, right, rel_tol=relative, abs_tol=absolute))
        for one, right in zip(given, expected, strict=True)
    ]


def _last_number(text: str) -> float | None:
    found = NUMBER.findall(text)
    if not found:
        return None
    try:
        return float(Decimal(found[-1].replace(",", "")))
    except (InvalidOperation, OverflowError):
        return None
