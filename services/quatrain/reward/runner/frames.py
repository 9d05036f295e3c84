"""Messages between the reward service and a runner: 4 bytes of length (big-endian), then UTF-8 JSON.

JSON and not pickle: the answer of a process that runs foreign code must not be able to run code here. NaN and infinity
are written as Python's json does.
"""

import io
import json
import struct
from collections.abc import Mapping
from typing import Any

HEADER = struct.Struct(">I")
Message = dict[str, Any]
"""A message as JSON. The runner trusts those of the service; the service reads answers by `backends.replies`."""


def encode_frame(message: Mapping[str, object]) -> bytes:
    """Return the message as bytes; a value that JSON does not have is sent as its text."""
    body = json.dumps(message, default=str).encode()
    return HEADER.pack(len(body)) + body


def read_frame(stream: io.RawIOBase) -> Message | None:
    """Read the next message; None when the other side has closed the pipe."""
    header = _read_exactly(stream, HEADER.size)
    body = _read_exactly(stream, HEADER.unpack(header)[0]) if header is not None else None
    message: Message | None = None if body is None else json.loads(body)
    return message


def _read_exactly(stream: io.RawIOBase, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = stream.read(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)
