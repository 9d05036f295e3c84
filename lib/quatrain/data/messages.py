"""Messages of a row: roles and contents in the spellings that data sets have, checked and made alike."""

from quatrain.data.fields import BadRow, encodable, kind_of
from quatrain.data.tally import Tally

_ROLES = ("system", "user", "assistant", "tool", "developer")
_SPELLINGS = {
    **{name: "user" for name in ("human", "prompter", "instruction")},
    **{name: "assistant" for name in ("gpt", "chatgpt", "bot", "model", "ai", "bing", "bard", "chosen", "rejected")},
}
_TOOLS = ("tool_calls", "function_call", "tool_call_id", "tools", "function", "audio", "refusal")
_REASONING = ("reasoning_content", "reasoning", "thinking", "thought", "thoughts")
_READ = ("role", "from", "content", "value", "weight")


def messages(value: object, column: str, tally: Tally | None = None) -> list[dict[str, str]]:
    """Return a list of messages with role and content only. Raises BadRow; `tally` counts fields that are not read."""
    if not isinstance(value, list) or not value:
        raise BadRow(f"{column} must be a list of at least one message, not {kind_of(value)}")
    return [message(item, f"{column}[{position}]", tally) for position, item in enumerate(value)]


def message(value: object, where: str, tally: Tally | None = None) -> dict[str, str]:
    """Return one message: of role and content, or of ShareGPT's from and value. Raises BadRow."""
    if not isinstance(value, dict):
        raise BadRow(f"{where} must be a message with role and content, not {kind_of(value)}")
    role_key, content_key = ("from", "value") if "from" in value and "role" not in value else ("role", "content")
    role = _role(value.get(role_key), f"{where}.{role_key}")
    _check_others(value, where, tally)
    return {"role": role, "content": _content(value.get(content_key), f"{where}.{content_key}")}


def untrained(value: object) -> bool:
    """Return whether a message says with weight 0 that it is not to be learnt."""
    return isinstance(value, dict) and value.get("weight") in (0, "0") and value.get("weight") is not False


def _role(role: object, where: str) -> str:
    found = role.strip().lower() if isinstance(role, str) else ""
    found = _SPELLINGS.get(found, found)
    if found not in _ROLES:
        raise BadRow(f"{where} must be one of {', '.join(_ROLES)}, not {role!r:.40}")
    return found


def _check_others(value: dict[object, object], where: str, tally: Tally | None) -> None:
    for key, item in value.items():
        if key in _READ or item is None or item in ([], {}, ""):
            continue
        if key in _TOOLS:
            raise BadRow(f"{where} has the field {key!r}: calls of tools are not read, only role and content are")
        if key in _REASONING:
            raise BadRow(f"{where} has the field {key!r}: put the reasoning into content, as the model is to write it")
        if tally is not None:
            tally.count("have messages with fields beside role and content, which are not read")


def _content(content: object, where: str) -> str:
    if isinstance(content, list) and content:
        return "".join(_part(part, f"{where}[{position}]") for position, part in enumerate(content))
    if not isinstance(content, str):
        raise BadRow(f"{where} must be text, not {kind_of(content)}")
    return encodable(content, where)


def _part(part: object, where: str) -> str:
    if not isinstance(part, dict):
        raise BadRow(f"{where.rpartition('[')[0]} must be text, not a list")
    if part.get("type", "text") != "text" or not isinstance(part.get("text"), str):
        raise BadRow(f"{where} is a part of type {part.get('type')!r:.40}; only text parts are read")
    return encodable(str(part["text"]), where)
