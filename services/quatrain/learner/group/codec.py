"""What the ranks send each other, as JSON: the request that opens a stage, and the error of one rank."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from quatrain import errors
from quatrain.errors import QuatrainError, RunFailed
from quatrain.json_values import JsonObject
from quatrain.learner.requests import OpenRequest, Token
from quatrain.process.model_thread import as_quatrain_error
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import stage_named

ERROR_BYTES = 2048

_READERS: Mapping[str, Callable[[Any], Any]] = {
    "token": lambda token: Token(**token),
    "stage": stage_named,
    **dict.fromkeys(("model", "value_model", "tokenizer"), ModelRef.from_json),
    **dict.fromkeys(("data", "held_out", "checkpoint"), ObjectRef.from_json),
}
"""Of the fields of a request that are no plain values."""


def request_to_json(request: OpenRequest) -> JsonObject:
    """Return the request as a JSON object, the stage by its name."""
    return {**asdict(request), "stage": request.stage.name}


def request_from_json(document: JsonObject) -> OpenRequest:
    """Reverse `request_to_json`."""
    return OpenRequest(**{name: _field(name, value) for name, value in document.items()})


def _field(name: str, value: Any) -> Any:
    return value if value is None or name not in _READERS else _READERS[name](value)


def error_to_bytes(error: BaseException | None, rank: int) -> bytes:
    """Return ERROR_BYTES of padded JSON, for None nothing but spaces."""
    if error is None:
        return b" " * ERROR_BYTES
    known = as_quatrain_error(error)
    if isinstance(known, QuatrainError):
        kind, message, reason = type(known).__name__, known.message, known.code_reason
    else:
        kind, message, reason = RunFailed.__name__, f"{type(error).__name__}: {error}", RunFailed.reason
    # Each character may take six bytes.
    text = json.dumps([kind, f"rank {rank}: {message[: ERROR_BYTES // 6 - 40]}", reason])
    return text.encode().ljust(ERROR_BYTES)


def error_from_bytes(data: bytes) -> QuatrainError | None:
    """Return the error that another rank sent, or None if it had none."""
    if not data.strip():
        return None
    kind, message, reason = json.loads(data)
    error: QuatrainError = getattr(errors, kind, RunFailed)(message)
    error.code_reason = reason
    return error
