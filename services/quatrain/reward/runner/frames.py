"""Messages between the reward service and a runner: 4 bytes of length (big-endian), then UTF-8 JSON.

JSON and not pickle: what comes out of a process that runs foreign code must not be able to run code here. NaN and
infinity travel as Python's json writes them.
"""

import io
import json
import struct
from typing import Any

HEADER = struct.Struct(">I")


def encode_frame(message: dict[str, Any]) -> bytes:
    """One message as bytes; a value that JSON does not know travels as its text."""
    body = json.dumps(message, default=str).encode()
    return HEADER.pack(len(body)) + body


def decode_body(body: bytes) -> dict[str, Any]:
    """The message of a frame without its header."""
    message: dict[str, Any] = json.loads(body)
    return message


def read_frame(stream: io.RawIOBase) -> dict[str, Any] | None:
    """The next message; None when the other side has closed the pipe."""
    header = _read_exactly(stream, HEADER.size)
    body = _read_exactly(stream, HEADER.unpack(header)[0]) if header is not None else None
    return None if body is None else decode_body(body)


def _read_exactly(stream: io.RawIOBase, length: int) -> bytes | None:
    data = bytearray()
    while len(data) < length:
        part = stream.read(length - len(data))
        if not part:
            return None
        data += part
    return bytes(data)
