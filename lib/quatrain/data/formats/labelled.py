"""Two answers and a label that says which is better: the rows become pairs, and ties are dropped."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.columns import ANSWERS, ASKED, LABELS, SCORES, filled, two_sided, words
from quatrain.data.formats.conversion import Conversion, has
from quatrain.data.formats.implicit import shared
from quatrain.data.formats.labels import Names, Verdict, judge_of, judge_of_scores, rule_of
from quatrain.data.records import PairRecord, Prompt, Row
from quatrain.data.tally import Tally
from quatrain.errors import InvalidData

Judge = Callable[[Row], Verdict]
ReadPrompt = Callable[[Row, Tally], Prompt]
Answers = tuple[str, str]


class Sides(NamedTuple):
    """The columns of the prompt and both answers. Empty prompt: the answers are whole conversations.

    listed: each answer is a list with one text a turn.
    """

    prompt: str
    a: str
    b: str
    listed: bool = False


def converter(sides: Sides, judge: Judge) -> Callable[[Row, int, Tally], PairRecord]:
    """Return the conversion of a row with two answers and a judge."""

    def convert(row: Row, line: int, tally: Tally) -> PairRecord:
        verdict = judge(row)
        tally.judge(verdict.a_is_better)
        prompt, a, b = _read(row, sides, tally)
        return pair(prompt, (a, b), verdict, line)

    return convert


def pair(prompt: Prompt, answers: Answers, verdict: Verdict, line: int) -> PairRecord:
    """Return the pair with the better answer first. Raises BadRow when the answers are equal."""
    if answers[0] == answers[1]:
        raise BadRow("both answers are equal")
    chosen, rejected = answers if verdict.a_is_better else answers[::-1]
    return PairRecord(prompt, chosen, rejected, verdict.margin, line)


def find_labelled(
    rows: Sequence[Row], names: Sequence[str], rule: str | None, mapped: dict[str, str]
) -> Conversion[PairRecord] | None:
    """Return the format of rows with two answers and a label, or None: there are no two answers.

    Raises InvalidData where there are, and the prompt, the label or its rule cannot be told.
    """
    found = find_labelled_columns(names)
    if found is None:
        return None
    a, b = found
    sides = Sides(_prompt_column(rows, names, (a, b)), a, b)
    judge, used, how = _judge(rows, names, sides, rule, mapped)
    return Conversion(
        "labelled-pairs",
        lambda row: has(row, a, b),
        converter(sides, judge),
        frozenset({sides.prompt, a, b, *used, *turns.SYSTEM_COLUMNS}),
        f"`{a}` is a, `{b}` is b, {how}",
    )


def _read(row: Row, sides: Sides, tally: Tally) -> tuple[Prompt, str, str]:
    if sides.prompt:
        prompt = turns.prompt(row, sides.prompt, tally)
        read = turns.listed_answer if sides.listed else turns.answer
        return prompt, read(row, sides.a, tally), read(row, sides.b, tally)
    first, second = (turns.conversation(row.get(column), column, tally) for column in (sides.a, sides.b))
    same = shared(first, second)
    if not same:
        raise BadRow(f"{sides.a} and {sides.b} have no first message in common, so there is no prompt")
    a, b = (turns.only_assistant(side[same:], name) for side, name in ((first, sides.a), (second, sides.b)))
    return turns.fit_system(first[:same], row), a, b


def find_labelled_columns(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns of the two answers of a row, if there are exactly two."""
    if has(dict.fromkeys(names), "a", "b"):
        return "a", "b"
    found = [
        pair for pair in two_sided(names, ANSWERS) if not words(pair[0]) & (SCORES | LABELS | {"id", "model", "source"})
    ]
    plain = [pair for pair in found if len(words(pair[0]) - {"a", "b"}) == 1] or found
    return plain[0] if len(plain) == 1 else None


def _prompt_column(rows: Sequence[Row], names: Sequence[str], answers: tuple[str, str]) -> str:
    for column in ("prompt", "messages"):
        if column in names:
            return column
    if all(_is_conversation(row.get(answers[0])) for row in rows[:20]):
        return ""
    asked = [name for name in names if words(name) & ASKED and filled(rows, name)]
    shown = asked[0] if asked else "NAME"
    raise InvalidData(
        f"The answers {answers[0]} and {answers[1]} have no column `prompt`; the columns are {', '.join(names)}. "
        f"Name it with `columns: {{prompt: {shown}}}`."
    )


def _is_conversation(value: object) -> bool:
    return isinstance(value, list) and len(value) > 1


def _judge(
    rows: Sequence[Row], names: Sequence[str], sides: Sides, rule: str | None, mapped: dict[str, str]
) -> tuple[Judge, tuple[str, ...], str]:
    scores = [pair for pair in two_sided(names, SCORES) if filled(rows, pair[0])]
    labels = [name for name in names if words(name) & LABELS and name not in sides and _sides_of(name, scores) is None]
    if "label" in names:
        scores, labels = ([], ["label"]) if rule not in ("higher-score", "lower-score") else (scores, [])
    elif rule in ("higher-score", "lower-score"):
        labels = []
    if len(scores) + len(labels) != 1:
        raise _no_label(sides, [*labels, *(" and ".join(pair) for pair in scores)])
    if scores:
        (first, second), lower = scores[0], rule == "lower-score"
        margin = "winner" not in words(first)
        how = f"the {'lower' if lower else 'higher'} of `{first}` and `{second}` is better"
        return judge_of_scores(first, second, lower, margin), scores[0], how
    label = labels[0]
    answers = Names(mapped.get(sides.a, sides.a), mapped.get(sides.b, sides.b))
    found = rule or rule_of([row.get(label) for row in rows], answers, list(rows))
    if found is None:
        raise InvalidData(
            f"The values of {label} do not say by themselves which answer is better "
            f"({', '.join(sorted({repr(row.get(label)) for row in rows[:50]})[:4])}). Set `label_rule`: index-from-0, "
            "index-from-1, a-if-true, name, negative-is-a or positive-is-a."
        )
    return judge_of(found, label, answers), (label,), f"`{label}` by the rule {found}"


def _sides_of(name: str, scores: Sequence[tuple[str, str]]) -> str | None:
    return next((name for pair in scores if name in pair or _ties(name, pair[0])), None)


def _ties(name: str, winner: str) -> bool:
    """Return whether the column says, beside winner_model_a and winner_model_b, that it is a tie."""
    return "tie" in words(name) and bool(words(name) & words(winner))


def _no_label(sides: Sides, found: Sequence[str]) -> InvalidData:
    several = f"{', '.join(found)} may all say which is better" if found else "no column says which is better"
    shown = found[0] if found else "NAME"
    return InvalidData(
        f"There are two answers, {sides.a} and {sides.b}, and {several}. Name the one that counts with "
        f"`columns: {{prompt: {sides.prompt or 'NAME'}, a: {sides.a}, b: {sides.b}, label: {shown}}}`, "
        "and what its values mean with `label_rule`."
    )
