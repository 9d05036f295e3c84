"""Formats of prompts for rollouts."""

from collections.abc import Callable

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.conversion import Conversion, is_list
from quatrain.data.formats.instructions import INSTRUCTIONS, Instruction
from quatrain.data.records import Prompt, PromptRecord, Row
from quatrain.data.tally import Tally

ReadPrompt = Callable[[Row, Tally], Prompt]


def _made(read: ReadPrompt, *without: str) -> Callable[[Row, int, Tally], PromptRecord]:
    """Return the conversion of a row: its prompt, and all other columns for reward functions."""

    def convert(row: Row, line: int, tally: Tally) -> PromptRecord:
        return PromptRecord(read(row, tally), fields.json_columns(row, (*without, *turns.SYSTEM_COLUMNS)), line)

    return convert


def _conversation(column: str) -> ReadPrompt:
    def read(row: Row, tally: Tally) -> Prompt:
        found = turns.fit_system(turns.conversation(row.get(column), column, tally), row)
        if found[-1]["role"] == "assistant":
            found = found[:-1]
        if not found:
            raise BadRow(f"{column} holds nothing before the assistant's answer")
        if isinstance(row.get("prompt"), str):
            tally.count("have a text prompt beside messages; the messages are used")
        return found

    return read


def _transcript(row: Row, tally: Tally) -> Prompt:
    prompt, _ = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    return prompt


def _column(row: Row, tally: Tally) -> Prompt:
    return turns.prompt(row, "prompt", tally)


def _from_instruction(shape: Instruction) -> Conversion[PromptRecord]:
    return Conversion(
        shape.name,
        lambda row: shape.question in row and shape.answer in row and (not shape.context or shape.context in row),
        _made(lambda row, tally: shape.prompt(row), shape.question, shape.context),
        _SYSTEM | {shape.question, shape.context, shape.answer},
        shape.doc,
        known=True,
    )


_SYSTEM = frozenset(turns.SYSTEM_COLUMNS)
PROMPTS: tuple[Conversion[PromptRecord], ...] = (
    Conversion(
        "trl-conversational",
        lambda row: is_list(row, "prompt"),
        _made(_column, "prompt"),
        _SYSTEM | {"prompt"},
        "`prompt` messages",
    ),
    Conversion(
        "trl-conversational-messages",
        lambda row: "messages" in row,
        _made(_conversation("messages"), "messages"),
        _SYSTEM | {"messages", "prompt"},
        "`messages`, which win over a `prompt` text; an answer at the end is left out",
    ),
    Conversion(
        "trl-standard", lambda row: "prompt" in row, _made(_column, "prompt"), _SYSTEM | {"prompt"}, "`prompt` text"
    ),
    *(
        Conversion(
            name,
            lambda row, column=column: column in row,  # type: ignore[misc]
            _made(_conversation(column), column),
            _SYSTEM | {column},
            f"`{column}`; an answer at the end is left out",
            known=True,
        )
        for name, column in (("sharegpt", "conversations"), ("capybara", "conversation"))
    ),
    Conversion(
        "guanaco",
        lambda row: turns.is_guanaco(row.get("text")),
        _made(_conversation("text"), "text"),
        frozenset({"text"}),
        '`text` with "### Human:" and "### Assistant:" turns; an answer at the end is left out',
        known=True,
    ),
    *(_from_instruction(shape) for shape in INSTRUCTIONS),
    Conversion(
        "hh-rlhf",
        lambda row: turns.is_transcript(row.get("chosen")),
        _made(_transcript, "chosen", "rejected"),
        frozenset({"chosen", "rejected"}),
        "`chosen` a transcript; its last answer is left out",
        known=True,
    ),
)
PROMPTS_NEED = "prompt; or messages; or chosen with hh-rlhf transcripts"
