"""Pairs whose prompt is what both sides begin with, and pairs with a prompt beside whole conversations."""

import re
from collections.abc import Sequence

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.messages import messages
from quatrain.data.records import Prompt, Row
from quatrain.data.tally import Tally

Sides = tuple[Prompt, str, str]
"""Prompt, chosen and rejected."""

_TURN_MARK = re.compile(
    r"(?:^|\s|#\s?)(?:assistant|ai|bot|gpt|model|response|answer|tl;dr|a)\s*:|<\|?(?:im_start\|>)?assistant\|?>?\s*\n"
    r"|<\|assistant\|>|<start_of_turn>model\n|\[/INST\]",
    re.IGNORECASE,
)
_OTHER_PROMPT = "have a prompt that is not the question of their conversations; the conversations are used"


def common_text(row: Row) -> Sides:
    """Return the sides of two texts that begin alike. Raises BadRow where no prompt can be told from the answers.

    The prompt ends at the last turn mark of the common beginning, or else at its last line break or white space; then
    it must not be most of either text, since answers often share their first words.
    """
    chosen, rejected = fields.text(row, "chosen"), fields.text(row, "rejected")
    _check_no_prefix(chosen, rejected)
    end, marked = _end_of_prompt(chosen[: shared(chosen, rejected)])
    # A space before the answer belongs to the answer, since tokenizers join it with the word that follows.
    prompt = chosen[:end].removesuffix(" ")
    if not prompt.strip():
        raise BadRow("chosen and rejected have no beginning in common that ends with a word, so there is no prompt")
    if not marked and 2 * len(prompt) > min(len(chosen), len(rejected)):
        raise BadRow("chosen and rejected begin alike for most of their length, so the prompt cannot be told from them")
    return _checked(prompt, chosen[len(prompt) :], rejected[len(prompt) :])


def common_messages(row: Row, tally: Tally) -> Sides:
    """Return the sides of two conversations that differ in their last message. Raises BadRow."""
    chosen, rejected = (turns.conversation(row.get(side), side, tally) for side in ("chosen", "rejected"))
    same = shared(chosen, rejected)
    if same == len(chosen) == len(rejected):
        raise BadRow("chosen and rejected are equal")
    if not same:
        raise BadRow("chosen and rejected have no first message in common, so there is no prompt")
    answers = [turns.only_assistant(side[same:], name) for side, name in ((chosen, "chosen"), (rejected, "rejected"))]
    return _checked(turns.fit_system(chosen[:same], row), *answers)


def transcripts(row: Row) -> Sides:
    """Return the sides of two hh-rlhf transcripts. Raises BadRow."""
    prompt, chosen = fields.split_transcript(fields.text(row, "chosen"), "chosen")
    other, rejected = fields.split_transcript(fields.text(row, "rejected"), "rejected")
    if prompt != other:
        raise BadRow("chosen and rejected have different prompts before their last answer")
    return _checked(prompt, chosen, rejected)


def beside_prompt(row: Row, column: str, tally: Tally) -> Sides:
    """Return the sides of a row with a prompt, whose sides are answers or whole conversations. Raises BadRow."""
    sides = turns.unpacked(row.get("chosen")), turns.unpacked(row.get("rejected"))
    if all(_is_conversation(side) for side in sides):
        found = common_messages(row, tally)
        _compare(turns.unpacked(row[column]), found[0], tally)
        return found
    value = row.get(column)
    if isinstance(value, str) and all(turns.is_transcript(side) for side in sides):
        found = transcripts(row)
        if not turns.same_words(value, str(found[0])) and value.strip() not in found[0]:
            tally.count(_OTHER_PROMPT)
        return found
    prompt = turns.prompt(row, column, tally) if column == "prompt" else _conversation_prompt(row, column, tally)
    chosen, rejected = turns.answer(row, "chosen", tally), turns.answer(row, "rejected", tally)
    if isinstance(value, str) and chosen.startswith(value) and rejected.startswith(value):
        tally.count("have sides that begin with the prompt, which is taken off them")
        chosen, rejected = chosen[len(value) :], rejected[len(value) :]
    return _checked(prompt, chosen, rejected)


def shared(first: Sequence[object], second: Sequence[object]) -> int:
    """Return the length of the common beginning."""
    for position, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return position
    return min(len(first), len(second))


def _conversation_prompt(row: Row, column: str, tally: Tally) -> Prompt:
    return turns.fit_system(turns.conversation(row.get(column), column, tally), row)


def _is_conversation(side: object) -> bool:
    """Return whether a side is more than the one message of the assistant."""
    if not isinstance(side, list) or not side:
        return False
    first = side[0]
    return isinstance(first, dict) and (len(side) > 1 or first.get("role", first.get("from")) in ("user", "human"))


def _compare(beside: object, prompt: Prompt, tally: Tally) -> None:
    """Count a row whose prompt column says something else than the conversations."""
    if isinstance(beside, list):
        if messages(beside, "prompt", tally) != prompt:
            tally.count(_OTHER_PROMPT)
    elif isinstance(beside, str) and not isinstance(prompt, str):
        asked = [each["content"] for each in prompt if each["role"] == "user"]
        whole = "\n".join(each["content"] for each in prompt)
        if not any(turns.same_words(beside, each) for each in (*asked[:1], *asked[-1:], whole)):
            tally.count(_OTHER_PROMPT)


def _check_no_prefix(chosen: str, rejected: str) -> None:
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    if chosen.startswith(rejected) or rejected.startswith(chosen):
        raise BadRow("one side is the beginning of the other, so the prompt cannot be told from the answers")


def _end_of_prompt(beginning: str) -> tuple[int, bool]:
    """Return where the prompt ends in the common beginning, and whether a turn mark says so."""
    marks = [found.end() for found in _TURN_MARK.finditer(beginning)]
    if marks:
        return marks[-1], True
    line_break = beginning.rfind("\n") + 1
    if line_break:
        return line_break, False
    return max((position + 1 for position, letter in enumerate(beginning) if letter.isspace()), default=0), False


def _checked(prompt: Prompt, chosen: str, rejected: str) -> Sides:
    if chosen == rejected:
        raise BadRow("chosen and rejected are equal")
    for side, name in ((chosen, "chosen"), (rejected, "rejected")):
        if not side.strip():
            raise BadRow(f"{name} is empty after the prompt")
    return prompt, chosen, rejected
