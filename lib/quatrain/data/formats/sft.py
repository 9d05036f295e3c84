"""Formats of prompts with a completion to learn."""

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.conversion import Conversion, has, is_list, is_text
from quatrain.data.formats.instructions import INSTRUCTIONS, Instruction
from quatrain.data.formats.unpaired import KTO_COLUMNS, is_unpaired, label
from quatrain.data.records import Row, SftRecord
from quatrain.data.tally import Tally

_SYSTEM = frozenset(turns.SYSTEM_COLUMNS)
_CONVERSATIONS = {
    "messages": ("trl-conversational-messages", "`messages`, the last one of the assistant; they win over a `prompt`"),
    "conversations": ("sharegpt", "`conversations` of `from` and `value` (or role and content)"),
    "conversation": ("capybara", "`conversation` of `input` and `output` (or messages)"),
    "text": ("guanaco", '`text` with "### Human:" and "### Assistant:" turns'),
}
_BESIDE_MESSAGES = "have a text prompt beside messages; the messages are used"


def _completion(row: Row, line: int, tally: Tally) -> SftRecord:
    return SftRecord(turns.prompt(row, "prompt", tally), turns.answer(row, "completion", tally), line)


def _desired(row: Row, line: int, tally: Tally) -> SftRecord:
    wanted = label(row)
    if wanted is None:
        raise BadRow("label must be true or false")
    if not wanted:
        tally.count("have the label false and are left out: an answer that is not wanted is not learnt")
        raise BadRow("label is false: an answer that is not wanted is not learnt")
    return _completion(row, line, tally)


def _messages(column: str) -> "Conversion[SftRecord]":
    def convert(row: Row, line: int, tally: Tally) -> SftRecord:
        before, completion = turns.ends_in_answer(row, column, tally)
        if is_text(row, "prompt"):
            tally.count(_BESIDE_MESSAGES)
        return SftRecord(before, completion, line)

    name, doc = _CONVERSATIONS[column]

    def fits(row: Row) -> bool:
        return turns.is_guanaco(row.get(column)) if column == "text" else column in row and "completion" not in row

    return Conversion(name, fits, convert, _SYSTEM | {column, "prompt"}, doc, known=column != "messages")


def _transcript(row: Row, line: int, tally: Tally) -> SftRecord:
    prompt, completion = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    return SftRecord(prompt, completion, line)


def _from_instruction(shape: Instruction) -> Conversion[SftRecord]:
    def convert(row: Row, line: int, tally: Tally) -> SftRecord:
        return SftRecord(shape.prompt(row), turns.answer(row, shape.answer, tally), line)

    return Conversion(
        shape.name,
        lambda row: has(row, shape.question, shape.answer) and (not shape.context or shape.context in row),
        convert,
        _SYSTEM | {shape.question, shape.context, shape.answer, "text"},
        shape.doc,
        known=True,
    )


def _pair_of_columns(row: Row) -> bool:
    return has(row, "prompt", "completion") and not is_unpaired(row)


_USED = _SYSTEM | {"prompt", "completion"}
SFT: tuple[Conversion[SftRecord], ...] = (
    Conversion(
        "kto",
        is_unpaired,
        _desired,
        KTO_COLUMNS | _SYSTEM,
        "`prompt`, `completion` and a boolean `label`; only rows with true are learnt",
        known=True,
    ),
    Conversion(
        "trl-conversational",
        lambda row: _pair_of_columns(row) and is_list(row, "prompt") and is_list(row, "completion"),
        _completion,
        _USED,
        "`prompt` messages, `completion` one assistant message in a list",
    ),
    Conversion(
        "canonical",
        lambda row: _pair_of_columns(row) and is_list(row, "prompt") and is_text(row, "completion"),
        _completion,
        _USED,
        "`prompt` messages, `completion` text",
    ),
    Conversion("trl-standard", _pair_of_columns, _completion, _USED, "`prompt` text, `completion` text"),
    *(_messages(column) for column in _CONVERSATIONS),
    *(_from_instruction(shape) for shape in INSTRUCTIONS),
    Conversion(
        "hh-rlhf",
        lambda row: turns.is_transcript(row.get("chosen")),
        _transcript,
        frozenset({"chosen", "rejected"}),
        "`chosen` a transcript",
        known=True,
    ),
)
SFT_NEEDS = "prompt and completion; or messages; or chosen with hh-rlhf transcripts"
