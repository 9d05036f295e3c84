"""Several answers with a score or rank each: the best against the worst, with the distance as margin."""

from collections.abc import Callable

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.conversion import Conversion, has, is_list
from quatrain.data.formats.labels import TIE
from quatrain.data.messages import message
from quatrain.data.records import NumberedRow, PairRecord, Prompt, Row
from quatrain.data.tally import Tally

_SYSTEM = frozenset(turns.SYSTEM_COLUMNS)
Scored = list[tuple[float, str]]
"""Scores and answers; the higher score is the better answer."""


def best_and_worst(prompt: Prompt, scored: Scored, line: int) -> PairRecord:
    """Return the pair of the best and the worst answer. Raises BadRow when there are none or they score alike."""
    if len(scored) < 2:
        raise BadRow("there is one answer with a score, and a pair needs two")
    best, worst = max(scored, key=lambda each: each[0]), min(scored, key=lambda each: each[0])
    if best[0] == worst[0]:
        raise BadRow(TIE)
    if best[1] == worst[1]:
        raise BadRow("the best and the worst answer are equal")
    return PairRecord(prompt, best[1], worst[1], fields.number(best[0] - worst[0], "the margin"), line)


def _items(row: Row, column: str, text: str, score: str, tally: Tally) -> list[tuple[dict[str, object], float, str]]:
    value = row.get(column)
    if not isinstance(value, list):
        raise BadRow(f"{column} must be a list of answers, not {fields.kind_of(value)}")
    found: list[tuple[dict[str, object], float, str]] = []
    for position, item in enumerate(value):
        where = f"{column}[{position}]"
        if not isinstance(item, dict):
            raise BadRow(f"{where} must be a mapping, not {fields.kind_of(item)}")
        if item.get(score) is None or not isinstance(item.get(text), str) or not item[text].strip():
            tally.count("have answers without a text or a score, which are left out")
            continue
        found.append((item, fields.number(item[score], f"{where}.{score}"), fields.encodable(item[text], where)))
    return found


def _is_ranked(value: object) -> bool:
    """Return whether these are answers with ranks; a prompt set may have a list of right answers."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and "rank" in value[0]


def _nectar(row: Row, line: int, tally: Tally) -> PairRecord:
    answers = _items(row, "answers", "answer", "rank", tally)
    prompt = turns.prompt(row, "prompt", Tally())
    scored = [(-rank, text) for _, rank, text in answers]  # rank 1 is the best
    if isinstance(prompt, str) and prompt.endswith(": "):
        # The space after the turn mark belongs to the answers, since tokenizers join it with the word that follows.
        prompt, scored = prompt[:-1], [(score, " " + text) for score, text in scored]
    return best_and_worst(prompt, scored, line)


def _ultrafeedback(row: Row, line: int, tally: Tally) -> PairRecord:
    answers = _items(row, "completions", "response", "overall_score", tally)
    pair = best_and_worst("", [(score, text) for _, score, text in answers], line)
    systems = {
        str(item.get("custom_system_prompt") or "") for item, _, text in answers if text in (pair.chosen, pair.rejected)
    }
    prompt = [message({"role": "user", "content": fields.text(row, "instruction")}, "instruction")]
    if len(systems) == 1:
        prompt = turns.fit_system(prompt, {"system": next(iter(systems))})
    else:
        tally.count("have answers to different system prompts, which are left out")
    return PairRecord(prompt, pair.chosen, pair.rejected, pair.margin, line)


def _alone(row: Row, line: int, tally: Tally) -> PairRecord:
    raise BadRow("one answer is no pair")


def _joined(score: str) -> Callable[[list[NumberedRow], Tally], PairRecord]:
    def join(rows: list[NumberedRow], tally: Tally) -> PairRecord:
        if len(rows) < 2:
            raise BadRow("no neighbour has the same prompt, so there is one answer and no pair")
        scored = [(fields.number(row.get(score), score), turns.answer(row, "response", tally)) for _, row in rows]
        line, first = rows[0]
        return best_and_worst(turns.prompt(first, "prompt", tally), scored, line)

    return join


SCORED: tuple[Conversion[PairRecord], ...] = (
    Conversion(
        "ultrafeedback",
        lambda row: "instruction" in row and is_list(row, "completions"),
        _ultrafeedback,
        frozenset({"instruction", "completions"}),
        "`instruction`, `completions` with `overall_score`; the best against the worst, margin the difference",
        known=True,
    ),
    Conversion(
        "nectar",
        lambda row: "prompt" in row and _is_ranked(row.get("answers")),
        _nectar,
        _SYSTEM | {"prompt", "answers"},
        "`prompt`, `answers` with `rank`; the best against the worst, margin the ranks between them",
        known=True,
    ),
    Conversion(
        "helpsteer2",
        lambda row: has(row, "prompt", "response", "helpfulness"),
        _alone,
        _SYSTEM | {"prompt", "response", "helpfulness"},
        "`prompt`, `response`, `helpfulness`; neighbours with one prompt, best against worst, margin the difference",
        group=lambda row: row.get("prompt"),
        join=_joined("helpfulness"),
        known=True,
    ),
)
