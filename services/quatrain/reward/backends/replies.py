"""What a runner answers, read as what it is: bytes from foreign code."""

import json
from typing import Any

MAX_REPLY_BYTES = 64 * 2**20
MAX_NAME_BYTES = 200
MAX_MESSAGE_CHARACTERS = 2000


class BadReply(Exception):
    """The bytes are no answer of a runner."""


def read_reply(body: bytes, samples: int | None) -> dict[str, Any]:
    """A reply of known shape: `loaded` (where `samples` is None), `returned` for so many samples, or `failed`.

    Raises BadReply.
    """
    try:
        reply = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise BadReply(f"it is no JSON ({type(error).__name__})") from error
    shapes = {"failed": _failed, "loaded": _loaded} if samples is None else {"failed": _failed, "returned": _returned}
    status = reply.get("status") if isinstance(reply, dict) else None
    if not isinstance(status, str) or status not in shapes or not shapes[status](reply, samples):
        raise BadReply("it does not have the fields of one")
    if status == "failed":
        reply["what"] = reply["what"][:MAX_MESSAGE_CHARACTERS].encode(errors="replace").decode()
    return dict(reply)


def _failed(reply: dict[str, Any], samples: int | None) -> bool:
    sample = reply.get("sample")
    known = sample is None or (type(sample) is int and samples is not None and 0 <= sample < samples)
    return isinstance(reply.get("what"), str) and known


def _loaded(reply: dict[str, Any], _samples: int | None) -> bool:
    return isinstance(reply.get("code_digest"), str) and isinstance(reply.get("enforced"), dict)


def _returned(reply: dict[str, Any], samples: int | None) -> bool:
    terms, logged, metrics = reply.get("terms"), reply.get("logged"), reply.get("metrics")
    return (
        isinstance(terms, list)
        and len(terms) > 0
        and all(_term(term, samples) for term in terms)
        and isinstance(logged, dict)
        and all(isinstance(values, list) and len(values) == samples for values in logged.values())
        and isinstance(metrics, dict)
        and all(isinstance(values, list) and all(map(_number, values)) for values in metrics.values())
        and all(map(_name, (*logged, *metrics)))
    )


def _term(term: Any, samples: int | None) -> bool:
    if not isinstance(term, list) or len(term) != 2:
        return False
    name, values = term
    return (
        (name is None or _name(name))
        and isinstance(values, list)
        and len(values) == samples
        and all(value is None or _number(value) for value in values)
    )


def _name(value: Any) -> bool:
    """A text of some letters that has bytes: half a surrogate pair has none."""
    try:
        return isinstance(value, str) and len(value.encode()) <= MAX_NAME_BYTES
    except UnicodeEncodeError:
        return False


def _number(value: Any) -> bool:
    """A float, as the runner sends them; an integer could be too large for one."""
    return isinstance(value, float)
