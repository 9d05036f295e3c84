"""Prompts and conversations: from the columns that hold them to a prompt and an answer."""

import json
import re
from collections.abc import Sequence

from quatrain.data import fields
from quatrain.data.fields import HH_MARK, BadRow, kind_of
from quatrain.data.messages import message, messages, untrained
from quatrain.data.records import Prompt, Row
from quatrain.data.tally import Tally

SYSTEM_COLUMNS = ("system", "system_prompt")
_TURN_KEYS = {"role", "from"}
_GUANACO = re.compile(r"###\s*(Human|Assistant|System)\s*:", re.IGNORECASE)


def prompt(row: Row, column: str, tally: Tally) -> Prompt:
    """Return a prompt, with the text of a system column before it. Raises BadRow."""
    value = fields.present(row, column)
    if isinstance(value, str):
        value = _turns_of_cell(value, column, tally)
    return with_system(prompt_value(value, column, tally), row)


def prompt_value(value: object, column: str, tally: Tally) -> Prompt:
    """Return a text or messages. Raises BadRow."""
    if isinstance(value, list):
        found = messages(value, column, tally)
        if not any(each["content"].strip() for each in found):
            raise BadRow(f"{column} is empty")
        return found
    if not isinstance(value, str):
        raise BadRow(f"{column} must be text, not {kind_of(value)}")
    if not value.strip():
        raise BadRow(f"{column} is empty" if not value else f"{column} is blank")
    if value != value.rstrip() and value.rstrip().endswith(":"):
        tally.count("have a prompt that ends in white space after a turn mark; answers usually begin with that space")
    return fields.encodable(value, column)


def with_system(prompt: Prompt, row: Row) -> Prompt:
    """Return the prompt after the row's system text: as a message before messages, as a paragraph before a text."""
    found = [row[column] for column in SYSTEM_COLUMNS if isinstance(row.get(column), str)]
    system = str(found[0]) if found else ""
    if not system.strip():
        return prompt
    fields.encodable(system, "system")
    if isinstance(prompt, str):
        return f"{system}\n\n{prompt}"
    if prompt[0]["role"] == "system":
        return prompt
    return [{"role": "system", "content": system}, *prompt]


def answer(row: Row, column: str, tally: Tally) -> str:
    """Return an answer: a text, one assistant message, or a list of one. Raises BadRow when it is none or blank."""
    value = unpacked(fields.present(row, column))
    if isinstance(value, dict):
        value = [value]
    if isinstance(value, list):
        found = only_assistant(messages(value, column, tally), column)
    elif isinstance(value, str):
        found = fields.encodable(value, column)
    else:
        raise BadRow(f"{column} must be text, not {kind_of(value)}")
    if not found.strip():
        raise BadRow(f"{column} is empty")
    return found


def listed_answer(row: Row, column: str, tally: Tally) -> str:
    """Return the one text of a cell that lists answers, one a turn. Raises BadRow when it is none, or several."""
    texts = _from_json(fields.present(row, column))
    if not isinstance(texts, list):
        return answer(row, column, tally)
    if len(texts) != 1 or texts[0] is None:
        raise BadRow(f"{column} holds {'null' if len(texts) == 1 else len(texts)} in place of one answer")
    return answer({column: texts[0]}, column, tally)


def only_assistant(found: Sequence[dict[str, str]], column: str) -> str:
    """Return the content of the one assistant message that the list must be. Raises BadRow."""
    if len(found) != 1 or found[0]["role"] != "assistant":
        roles = ", ".join(message["role"] for message in found) or "nothing"
        raise BadRow(f"{column} must be one assistant message, it is {roles}")
    return found[0]["content"]


def conversation(value: object, column: str, tally: Tally) -> list[dict[str, str]]:
    """Return a conversation: messages, ShareGPT's, capybara's input and output, or one text. Raises BadRow."""
    value = unpacked(value)
    if isinstance(value, str):
        return _transcript(value, column)
    if isinstance(value, list) and value and isinstance(value[0], dict) and has_input_output(value[0]):
        return _exchanges(value, column)
    return messages(value, column, tally)


def ends_in_answer(row: Row, column: str, tally: Tally) -> tuple[list[dict[str, str]], str]:
    """Return what stands before the last assistant message, and that message. Raises BadRow."""
    value = row.get(column)
    found = conversation(value, column, tally)
    found = fit_system(found, row)
    if len(found) < 2:
        raise BadRow(f"{column} must hold a prompt and the assistant's answer, there is one message")
    if isinstance(value, list) and untrained(value[-1]):
        raise BadRow(f"the last message of {column} has weight 0, so there is nothing to learn")
    completion = only_assistant(found[-1:], "the last message")
    if not completion.strip():
        raise BadRow("the last message is empty")
    return found[:-1], completion


def fit_system(found: list[dict[str, str]], row: Row) -> list[dict[str, str]]:
    """Return the messages after the row's system text."""
    done = with_system(found, row)
    assert isinstance(done, list), "messages stay messages"
    return done


def has_input_output(value: object) -> bool:
    """Return whether this is an exchange as capybara has it."""
    return isinstance(value, dict) and "input" in value and "output" in value


def is_transcript(value: object) -> bool:
    """Return whether this is a text with hh-rlhf's turn mark."""
    return isinstance(value, str) and HH_MARK in value


def is_guanaco(value: object) -> bool:
    """Return whether this is one text of "### Human:" and "### Assistant:"."""
    return isinstance(value, str) and {mark.lower() for mark in _GUANACO.findall(value)} >= {"human", "assistant"}


def same_words(first: str, second: str) -> bool:
    """Return whether two texts are equal but for white space."""
    return first.split() == second.split()


def _transcript(value: str, column: str) -> list[dict[str, str]]:
    if not is_guanaco(value):
        raise BadRow(f'{column} must be a list of messages or a text of "### Human:" and "### Assistant:" turns')
    before, *pieces = _GUANACO.split(value)
    if before.strip():
        raise BadRow(f"{column} has text before its first turn")
    pairs = zip(pieces[::2], pieces[1::2], strict=True)
    return [message({"role": role, "content": text.strip()}, column) for role, text in pairs]


def _exchanges(value: list[object], column: str) -> list[dict[str, str]]:
    found: list[dict[str, str]] = []
    for position, item in enumerate(value):
        where = f"{column}[{position}]"
        if not isinstance(item, dict):
            raise BadRow(f"{where} must have input and output, not {kind_of(item)}")
        found.append(message({"role": "user", "content": item.get("input")}, f"{where}.input"))
        found.append(message({"role": "assistant", "content": item.get("output")}, f"{where}.output"))
    return found


def _turns_of_cell(value: str, column: str, tally: Tally) -> object:
    """Return the user's message of a cell that lists one text, as arena's tables do. Raises BadRow for more texts."""
    found = unpacked(value)
    if found is not value:
        return found
    texts = _from_json(value)
    if not isinstance(texts, list) or not texts or not all(isinstance(item, str) for item in texts):
        return value
    if len(texts) > 1:
        raise BadRow(f"{column} lists {len(texts)} turns without the answers between them")
    tally.count("have a prompt that is a JSON list of one text, which is read as the user's message")
    return [{"role": "user", "content": texts[0]}]


def unpacked(value: object) -> object:
    """Return the messages that a cell holds as JSON text, as in tables without lists; any other value as it is."""
    found = _from_json(value)
    if isinstance(found, list) and found and all(isinstance(item, dict) and _TURN_KEYS & item.keys() for item in found):
        return found
    return value


def _from_json(value: object) -> object:
    """Return the list that a text is the JSON of; any other value as it is."""
    if not isinstance(value, str) or not value.lstrip().startswith("["):
        return value
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return found if isinstance(found, list) else value
