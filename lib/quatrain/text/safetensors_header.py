"""Reads and checks the header of a safetensors file without loading a tensor.

A file is an 8-byte little-endian header length, a JSON header, and the tensors' bytes with no gap and nothing after
(https://github.com/huggingface/safetensors#format).
"""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.errors import InvalidData

MAX_HEADER_BYTES = 100_000_000
_BITS = {
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 64),
    **dict.fromkeys(("F32", "I32", "U32"), 32),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 16),
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("F6_E2M3", "F6_E3M2"), 6),
    "F4": 4,
}


@dataclass(frozen=True)
class TensorEntry:
    """A tensor's dtype name, shape, and where its bytes stand after the header: [begin, end)."""

    dtype: str
    shape: tuple[int, ...]
    begin: int
    end: int


def read_header(path: Path) -> dict[str, TensorEntry]:
    """Tensor name to entry. Raises InvalidData naming the file and what is wrong with it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        prefix = file.read(8)
        if len(prefix) < 8:
            raise _corrupt(path, f"it has only {size} bytes, too few for a header")
        length = int.from_bytes(prefix, "little")
        if length > MAX_HEADER_BYTES or length > size - 8:
            raise _corrupt(path, f"its header claims {length} bytes, the file has {size}")
        raw = file.read(length)
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError):
        raise _corrupt(path, "its header is not JSON") from None
    if not isinstance(header, dict):
        raise _corrupt(path, "its header is not a JSON object")
    entries = {name: _entry(path, name, value) for name, value in header.items() if name != "__metadata__"}
    _check_layout(path, entries, size - 8 - length)
    return entries


def _entry(path: Path, name: str, value: Any) -> TensorEntry:
    try:
        dtype, shape, (begin, end) = value["dtype"], value["shape"], value["data_offsets"]
    except (TypeError, KeyError, ValueError):
        raise _corrupt(path, f"the header's entry of tensor {name!r} lacks dtype, shape or data_offsets") from None
    numbers = [*shape, begin, end] if isinstance(shape, list) else [-1]
    if not all(type(number) is int and 0 <= number < 2**63 for number in numbers):
        raise _corrupt(path, f"shape or data_offsets of tensor {name!r} are not whole numbers from 0")
    if not isinstance(dtype, str) or dtype not in _BITS:
        raise _corrupt(path, f"tensor {name!r} has the unknown dtype {dtype!r}")
    wanted = (math.prod(shape) * _BITS[dtype] + 7) // 8
    if end - begin != wanted:
        raise _corrupt(path, f"tensor {name!r} needs {wanted} bytes ({dtype} {shape}) and has {end - begin}")
    return TensorEntry(dtype, tuple(shape), begin, end)


def _check_layout(path: Path, entries: dict[str, TensorEntry], data_bytes: int) -> None:
    position = 0
    for name, entry in sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)):
        if entry.begin != position:
            raise _corrupt(path, f"tensor {name!r} starts at byte {entry.begin}, not at {position}")
        position = entry.end
    if position > data_bytes:
        raise _corrupt(
            path, f"it is cut short: the header describes {position} bytes of tensors, {data_bytes} are there"
        )
    if position < data_bytes:
        raise _corrupt(path, f"{data_bytes - position} bytes follow the last tensor")


def _corrupt(path: Path, what: str) -> InvalidData:
    return InvalidData(f"{path} is not a sound safetensors file: {what}. Save or copy the model again.")
