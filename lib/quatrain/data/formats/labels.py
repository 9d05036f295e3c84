"""Rules that say which of two answers, a and b, is the better one.

index-from-0: 0 is a, 1 is b; index-from-1: 1 is a, 2 is b; a-if-true: 1 or true is a, 0 or false is b; name: a name of
the answer; negative-is-a, positive-is-a: by the sign, 0 is a tie; higher-score, lower-score: of two columns.
"""

import re
from collections.abc import Callable
from typing import NamedTuple

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats.columns import ANSWERS, words
from quatrain.data.records import Row

TIE = "a tie: neither answer is the better one"
_TIES = ("tie", "both", "neither", "equal", "same", "draw", "no_preference", "none", "equally")
_NOUNS = ANSWERS | {"model", "option", "system", "choice", "human"}
_FIRST = ("first", "left")
_SECOND = ("second", "right")


class Verdict(NamedTuple):
    """Whether a is the better answer, and by how much, if the label says so."""

    a_is_better: bool
    margin: float | None = None


class Names(NamedTuple):
    """The columns of both answers as the file has them, which values of a label may name."""

    a: str
    b: str


def judge_of(rule: str, label: str, names: Names) -> Callable[[Row], Verdict]:
    """Return the judge of a rule over one column. It raises BadRow: a tie, or a value that the rule does not know."""

    def judge(row: Row) -> Verdict:
        value = fields.present(row, label)
        if rule == "name":
            return Verdict(_named(value, row, label, names))
        number = float(value) if isinstance(value, bool) else fields.number(_word(value), label)
        if rule in ("negative-is-a", "positive-is-a"):
            if number == 0:
                raise BadRow(TIE)
            return Verdict((number < 0) == (rule == "negative-is-a"), abs(number))
        first, second = {"index-from-0": (0, 1), "index-from-1": (1, 2), "a-if-true": (1, 0)}[rule]
        if number not in (first, second):
            raise BadRow(f"{label} is {value!r:.40}; by the rule {rule} it is {first} for a or {second} for b")
        return Verdict(number == first)

    return judge


def judge_of_scores(a_score: str, b_score: str, lower: bool = False, margin: bool = True) -> Callable[[Row], Verdict]:
    """Return the judge that compares the columns of both answers' scores. It raises BadRow."""

    def judge(row: Row) -> Verdict:
        scores = [_score(row, column) for column in (a_score, b_score)]
        gain = fields.number(scores[0] - scores[1], f"{a_score} minus {b_score}")
        if gain == 0:
            raise BadRow(TIE)
        return Verdict((gain > 0) != lower, abs(gain) if margin else None)

    return judge


def rule_of(values: list[object], names: Names, rows: list[Row]) -> str | None:
    """Return the one rule that the values of a label allow, or None: none or several do."""
    known = [value for value in values if value is not None]
    numbers = [_numeric(value) for value in known]
    if not known or any(isinstance(value, bool) for value in known):
        return None  # true may mean "a is better" or "b, the second, is better"
    if all(number is not None for number in numbers):
        return _rule_of_numbers({number for number in numbers if number is not None})
    named = [_side(str(value), row, names) for value, row in zip(values, rows, strict=True) if value is not None]
    return "name" if all(side is not None for side in named) else None


def _rule_of_numbers(numbers: set[float]) -> str | None:
    if numbers == {1}:
        return None  # the second of 0 and 1, or the first of 1 and 2
    if numbers <= {0, 1}:
        return "index-from-0"
    if numbers <= {1, 2}:
        return "index-from-1"
    return "negative-is-a" if min(numbers) < 0 < max(numbers) else None


def _score(row: Row, column: str) -> float:
    value = fields.present(row, column)
    return float(value) if isinstance(value, bool) else fields.number(value, column)


def _word(value: object) -> object:
    """Return the number of a word, since CSV has true and false as words."""
    return {"true": 1, "false": 0}.get(value.strip().lower(), value) if isinstance(value, str) else value


def _numeric(value: object) -> float | None:
    try:
        return fields.number(value, "label")
    except BadRow:
        return None


def _named(value: object, row: Row, label: str, names: Names) -> bool:
    side = _side(str(value), row, names)
    if side is None:
        raise BadRow(f"{label} is {value!r:.40}, which names neither {names.a} nor {names.b}")
    if side == "tie":
        raise BadRow(TIE)
    return side == "a"


def _side(value: str, row: Row, names: Names) -> str | None:
    """Return a, b or tie; None: the value names neither."""
    models = str(row.get("model_a")), str(row.get("model_b"))
    if value in models and models[0] != models[1]:
        return "a" if value == models[0] else "b"
    word = re.sub(r"[^a-z0-9]+", "_", value.lower()).strip("_")
    if word.startswith(_TIES):
        return "tie"
    before, _, last = word.rpartition("_")
    for side, column, positions in (("a", names.a, _FIRST), ("b", names.b, _SECOND)):
        ending = re.split(r"[^a-z0-9]+|(?<=[a-z])(?=\d)", column.lower())[-1]
        # Whatever else stands before the mark may turn it round, as in "a is worse than b".
        plain = set(before.split("_")) <= {"", *_NOUNS, *words(column)} - {"a", "b"}
        if word == column.lower() or (plain and last in (ending, side)) or word in positions:
            return side
    return None
