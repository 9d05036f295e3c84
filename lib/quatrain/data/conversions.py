"""The data formats: how each is recognised by its columns and how its rows become canonical records.

hh-rlhf: `chosen` (and `rejected`) hold whole transcripts, split at the last "\\n\\nAssistant:".
trl-standard: texts; trl-conversational: lists of messages; both also without `prompt` for pairs, which is then what
`chosen` and `rejected` have in common at their beginning ("implicit prompt").
canonical: `prompt` (or `messages`) as messages, the answers as texts.
"""

from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from quatrain.data import fields
from quatrain.data.fields import HH_MARK, BadRow
from quatrain.data.records import PairRecord, PromptRecord, Record, Row, SftRecord

R = TypeVar("R", bound=Record)


class Conversion(NamedTuple, Generic[R]):
    """A format: its name, whether it fits a row, and the conversion of one row (raises BadRow)."""

    name: str
    fits: Callable[[Row], bool]
    convert: Callable[[Row, int], R]


def _has(row: Row, column: str, kind: type) -> bool:
    return isinstance(row.get(column), kind)


def _is_transcript(row: Row, column: str) -> bool:
    value = row.get(column)
    return isinstance(value, str) and HH_MARK in value


# SFT ------------------------------------------------------------------------------------------------------------------


def _sft(row: Row, line: int) -> SftRecord:
    completion = fields.answer(row, "completion")
    if not completion:
        raise BadRow("completion is empty")
    return SftRecord(fields.prompt(row), completion, line)


def _sft_messages(row: Row, line: int) -> SftRecord:
    found = fields.messages(row.get("messages"), "messages")
    if len(found) < 2:
        raise BadRow("messages must hold a prompt and the assistant's answer, there is one message")
    completion = fields.only_assistant(found[-1:], "the last message")
    if not completion:
        raise BadRow("the last message is empty")
    return SftRecord(found[:-1], completion, line)


def _sft_transcript(row: Row, line: int) -> SftRecord:
    prompt, completion = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    if not completion.strip():
        raise BadRow("the answer in chosen is empty")
    return SftRecord(prompt, completion, line)


SFT: Sequence[Conversion[SftRecord]] = (
    Conversion("trl-conversational", lambda row: _has(row, "prompt", list) and _has(row, "completion", list), _sft),
    Conversion("canonical", lambda row: _has(row, "prompt", list) and _has(row, "completion", str), _sft),
    Conversion("trl-standard", lambda row: "prompt" in row and "completion" in row, _sft),
    Conversion("trl-conversational-messages", lambda row: "messages" in row, _sft_messages),
    Conversion("hh-rlhf", lambda row: _is_transcript(row, "chosen"), _sft_transcript),
)
SFT_NEEDS = "prompt and completion; or messages; or chosen with hh-rlhf transcripts"


# Preference pairs -----------------------------------------------------------------------------------------------------


def _pair(row: Row, line: int) -> PairRecord:
    prompt = fields.prompt(row, "prompt" if row.get("prompt") is not None else "messages")
    return _checked_pair(
        row, PairRecord(prompt, fields.answer(row, "chosen"), fields.answer(row, "rejected"), None, line)
    )


def _pair_transcripts(row: Row, line: int) -> PairRecord:
    prompt, chosen = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    other, rejected = fields.split_transcript(fields.text(row, "rejected"), "rejected")
    if prompt != other:
        raise BadRow("chosen and rejected have different prompts before their last answer")
    return _checked_pair(row, PairRecord(prompt, chosen, rejected, None, line))


def _pair_common_text(row: Row, line: int) -> PairRecord:
    chosen, rejected = fields.text(row, "chosen"), fields.text(row, "rejected")
    shared = _shared(chosen, rejected)
    # A space before the answer belongs to the answer, since tokenizers join it with the word that follows.
    prompt = chosen[:shared].removesuffix(" ")
    if not prompt:
        raise BadRow("chosen and rejected have no beginning in common, so there is no prompt")
    return _checked_pair(row, PairRecord(prompt, chosen[len(prompt) :], rejected[len(prompt) :], None, line))


def _pair_common_messages(row: Row, line: int) -> PairRecord:
    chosen = fields.messages(row.get("chosen"), "chosen")
    rejected = fields.messages(row.get("rejected"), "rejected")
    shared = _shared(chosen, rejected)
    if shared == len(chosen) == len(rejected):
        raise BadRow("chosen and rejected are equal")
    if not shared:
        raise BadRow("chosen and rejected have no first message in common, so there is no prompt")
    answers = [
        fields.only_assistant(side[shared:], name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))
    ]
    return _checked_pair(row, PairRecord(chosen[:shared], answers[0], answers[1], None, line))


def _shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the length of the common beginning."""
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def _checked_pair(row: Row, pair: PairRecord) -> PairRecord:
    if pair.chosen == pair.rejected:
        raise BadRow("chosen and rejected are equal")
    return PairRecord(pair.prompt, pair.chosen, pair.rejected, fields.margin(row), pair.line)


def _with_prompt(row: Row) -> bool:
    return row.get("prompt") is not None or row.get("messages") is not None


def _both(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


PAIRS: Sequence[Conversion[PairRecord]] = (
    Conversion("trl-conversational", lambda r: _both(r) and _with_prompt(r) and _has(r, "chosen", list), _pair),
    Conversion("trl-standard", lambda r: _both(r) and _has(r, "prompt", str), _pair),
    Conversion("canonical", lambda r: _both(r) and _with_prompt(r), _pair),
    Conversion("trl-conversational-implicit", lambda r: _both(r) and _has(r, "chosen", list), _pair_common_messages),
    Conversion("hh-rlhf", lambda r: _both(r) and _is_transcript(r, "chosen"), _pair_transcripts),
    Conversion("trl-standard-implicit", lambda r: _both(r) and _has(r, "chosen", str), _pair_common_text),
)
PAIRS_NEED = "chosen and rejected (with prompt, or with transcripts or texts that begin alike)"


# Prompts --------------------------------------------------------------------------------------------------------------


def _prompt(row: Row, line: int) -> PromptRecord:
    return PromptRecord(fields.prompt(row), fields.json_columns(row, ("prompt",)), line)


def _prompt_messages(row: Row, line: int) -> PromptRecord:
    found = fields.messages(row.get("messages"), "messages")
    if found[-1]["role"] == "assistant":
        found = found[:-1]
    if not found:
        raise BadRow("messages holds nothing before the assistant's answer")
    return PromptRecord(found, fields.json_columns(row, ("messages",)), line)


def _prompt_transcript(row: Row, line: int) -> PromptRecord:
    prompt, _ = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    return PromptRecord(prompt, fields.json_columns(row, ("chosen", "rejected")), line)


PROMPTS: Sequence[Conversion[PromptRecord]] = (
    Conversion("trl-conversational", lambda row: _has(row, "prompt", list), _prompt),
    Conversion("trl-standard", lambda row: "prompt" in row, _prompt),
    Conversion("trl-conversational-messages", lambda row: "messages" in row, _prompt_messages),
    Conversion("hh-rlhf", lambda row: _is_transcript(row, "chosen"), _prompt_transcript),
)
PROMPTS_NEED = "prompt; or messages; or chosen with hh-rlhf transcripts"
