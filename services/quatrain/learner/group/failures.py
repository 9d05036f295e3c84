"""The error of one rank, told to the others in a fixed number of bytes."""

import json

from quatrain import errors
from quatrain.errors import QuatrainError, RunFailed
from quatrain.rpc.worker import told

TOLD_BYTES = 2048


def to_bytes(error: BaseException | None, rank: int) -> bytes:
    """TOLD_BYTES of padded JSON; spaces alone for None."""
    if error is None:
        return b" " * TOLD_BYTES
    known = told(error)
    if isinstance(known, QuatrainError):
        kind, message, reason = type(known).__name__, known.message, known.code_reason
    else:
        kind, message, reason = RunFailed.__name__, f"{type(error).__name__}: {error}", RunFailed.reason
    # Every character may take six bytes.
    text = json.dumps([kind, f"rank {rank}: {message[: TOLD_BYTES // 6 - 40]}", reason])
    return text.encode().ljust(TOLD_BYTES)


def from_bytes(data: bytes) -> QuatrainError | None:
    """The error that another rank told; None where it had none."""
    if not data.strip():
        return None
    kind, message, reason = json.loads(data)
    found = getattr(errors, kind, RunFailed)
    error: QuatrainError = found(message)
    error.code_reason = reason
    return error
