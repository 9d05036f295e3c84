"""Public sets of labelled pairs by the columns that they have."""

from collections.abc import Callable

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.conversion import Conversion, has
from quatrain.data.formats.instructions import Instruction
from quatrain.data.formats.labelled import Judge, Sides, converter, pair
from quatrain.data.formats.labels import Names, judge_of, judge_of_scores
from quatrain.data.formats.margins import margin
from quatrain.data.records import PairRecord, Row
from quatrain.data.tally import Tally


def _labelled(
    name: str, sides: Sides, judge: Judge, needs: tuple[str, ...], doc: str, unread: tuple[str, ...] = ()
) -> Conversion[PairRecord]:
    """Return a set of two answers. `unread` are columns that say the same as the label, or nothing about the pair."""
    columns = {sides.prompt, sides.a, sides.b, *needs}
    needed = tuple(column for column in columns if column)
    return Conversion(
        name,
        lambda row: has(row, *needed),
        converter(sides, judge),
        frozenset({*columns, *unread, *turns.SYSTEM_COLUMNS}),
        doc,
        known=True,
    )


def _by(rule: str, label: str, a: str, b: str) -> Judge:
    return judge_of(rule, label, Names(a, b))


def _summaries(row: Row, line: int, tally: Tally) -> PairRecord:
    info, summaries = row.get("info"), row.get("summaries")
    if not isinstance(info, dict) or not isinstance(summaries, list) or len(summaries) != 2:
        raise BadRow("info must be a mapping and summaries a list of two")
    texts = [turns.answer({"text": item.get("text")}, "text", tally) for item in summaries if isinstance(item, dict)]
    if len(texts) != 2:
        raise BadRow("a summary must be a mapping with text")
    return pair(_post(info), (texts[0], texts[1]), _by("index-from-0", "choice", "0", "1")(row), line)


def _post(info: Row) -> str:
    """Return the text that is to be summarised, as TRL's copies of the set write it."""
    parts = []
    for name, column in (
        ("SUBREDDIT: r/", "subreddit"),
        ("TITLE: ", "title"),
        ("POST: ", "post"),
        ("ARTICLE: ", "article"),
    ):
        value = info.get(column)
        if isinstance(value, str) and value.strip():
            parts.append(name + fields.encodable(value, f"info.{column}"))
    if not parts or not (info.get("post") or info.get("article")):
        raise BadRow("info has neither post nor article")
    return "\n\n".join([*parts, "TL;DR:"])


def _webgpt(row: Row, line: int, tally: Tally) -> PairRecord:
    question = row.get("question")
    text = question.get("full_text") if isinstance(question, dict) else question
    answers = turns.answer(row, "answer_0", tally), turns.answer(row, "answer_1", tally)
    return pair(fields.text({"question": text}, "question"), answers, judge_of_scores("score_0", "score_1")(row), line)


def _asked(column: str) -> Callable[[Row, int, Tally], PairRecord]:
    """Return the conversion of rows with system, a question, chosen and rejected."""
    shape = Instruction("", column, "", "chosen")

    def convert(row: Row, line: int, tally: Tally) -> PairRecord:
        chosen, rejected = turns.answer(row, "chosen", tally), turns.answer(row, "rejected", tally)
        if chosen == rejected:
            raise BadRow("chosen and rejected are equal")
        return PairRecord(shape.prompt(row), chosen, rejected, margin(row, tally), line)

    return convert


def _orca(column: str) -> Conversion[PairRecord]:
    return Conversion(
        "orca-dpo-pairs",
        lambda row: has(row, "system", column, "chosen", "rejected") and "prompt" not in row,
        _asked(column),
        frozenset({"system", column, "chosen", "rejected", "margin"}),
        f"`system`, `{column}`, `chosen`, `rejected`; system becomes a message",
        known=True,
    )


def _paired_answers(row: Row, line: int, tally: Tally) -> PairRecord:
    question = fields.text(row, "question")
    chosen, rejected = turns.answer(row, "response_j", tally), turns.answer(row, "response_k", tally)
    if chosen == rejected:
        raise BadRow("both answers are equal")
    return PairRecord(question, chosen, rejected, None, line)


KNOWN: tuple[Conversion[PairRecord], ...] = (
    _labelled(
        "pku-saferlhf",
        Sides("prompt", "response_0", "response_1"),
        _by("index-from-0", "better_response_id", "response_0", "response_1"),
        ("better_response_id",),
        "`prompt`, `response_0`, `response_1`, `better_response_id`",
    ),
    _labelled(
        "shp",
        Sides("history", "human_ref_A", "human_ref_B"),
        _by("a-if-true", "labels", "human_ref_A", "human_ref_B"),
        ("labels",),
        "`history`, `human_ref_A`, `human_ref_B`, `labels` (1 is A)",
        ("score_A", "score_B", "score_ratio", "upvote_ratio"),
    ),
    _labelled(
        "helpsteer2-preference",
        Sides("prompt", "response_1", "response_2"),
        _by("negative-is-a", "preference_strength", "response_1", "response_2"),
        ("preference_strength",),
        "`prompt`, `response_1`, `response_2`, `preference_strength` (negative is the first), margin its size",
        (
            "preference_statement",
            "preference_elaboration",
            "three_most_similar_preferences",
            "all_preferences_unprocessed",
        ),
    ),
    _labelled(
        "helpsteer3",
        Sides("context", "response1", "response2"),
        _by("negative-is-a", "overall_preference", "response1", "response2"),
        ("overall_preference",),
        "`context` messages, `response1`, `response2`, `overall_preference` (negative is the first), margin its size",
        ("individual_preference",),
    ),
    _labelled(
        "arena-33k",
        Sides("", "conversation_a", "conversation_b"),
        _by("name", "winner", "model_a", "model_b"),
        ("winner", "model_a", "model_b"),
        "`conversation_a`, `conversation_b`, `winner` (model_a, model_b or a tie); the last answers differ",
    ),
    _labelled(
        "mt-bench",
        Sides("", "conversation_a", "conversation_b"),
        _by("name", "winner", "model_a", "model_b"),
        ("winner", "model_a", "model_b", "judge", "turn"),
        "as arena-33k; a second turn with other first answers is dropped, since the answers have no prompt in common",
    ),
    _labelled(
        "arena-55k",
        Sides("prompt", "response_a", "response_b", listed=True),
        judge_of_scores("winner_model_a", "winner_model_b", margin=False),
        ("winner_model_a", "winner_model_b"),
        "`prompt`, `response_a`, `response_b` as lists of one turn, `winner_model_a`, `winner_model_b`",
        ("winner_tie",),
    ),
    Conversion(
        "webgpt-comparisons",
        lambda row: has(row, "question", "answer_0", "answer_1", "score_0", "score_1"),
        _webgpt,
        frozenset({"question", "answer_0", "answer_1", "score_0", "score_1"}),
        "`question`, `answer_0`, `answer_1`, the higher of `score_0` and `score_1`, margin the difference",
        known=True,
    ),
    Conversion(
        "summarize-from-feedback",
        lambda row: has(row, "info", "summaries", "choice") and "chosen" not in row,
        _summaries,
        frozenset({"info", "summaries", "choice"}),
        "`info` with subreddit, title and post (or article), two `summaries`, `choice`",
        known=True,
    ),
    Conversion(
        "stack-exchange-paired",
        lambda row: has(row, "question", "response_j", "response_k"),
        _paired_answers,
        frozenset({"question", "response_j", "response_k"}),
        "`question`, `response_j` (the better), `response_k`",
        known=True,
    ),
    _orca("question"),
    _orca("input"),
)
