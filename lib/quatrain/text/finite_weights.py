"""Looks for NaN and infinity in safetensors files by their bits, without torch and without loading a tensor whole."""

import json
from functools import lru_cache
from pathlib import Path

import numpy as np

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject, object_at
from quatrain.text.folder_files import read_json

_CHUNK_BYTES = 16 * 2**20
_EXPONENTS: dict[str, tuple[type[np.unsignedinteger], int]] = {
    "F64": (np.uint64, 0x7FF0000000000000),
    "F32": (np.uint32, 0x7F800000),
    "F16": (np.uint16, 0x7C00),
    "BF16": (np.uint16, 0x7F80),
}
"""By dtype, the unsigned integer of its size, and the bits of the exponent: all of them are set in NaN and infinity."""


@lru_cache(maxsize=256)
def check_finite_weights(folder: Path) -> None:
    """Raise InvalidData naming the first tensor that holds NaN or infinity.

    For folders that passed `check_model_folder` and do not change: one that passed is not read again by this process.
    """
    for file in _weight_files(folder):
        with file.open("rb") as weights:
            size = int.from_bytes(weights.read(8), "little")
            header: JsonObject = json.loads(weights.read(size))
            for name in header:
                if name != "__metadata__":
                    _check_tensor(file, name, object_at(header, name), 8 + size)


def _weight_files(folder: Path) -> list[Path]:
    """Return the files that a model is loaded from; a folder may hold the same weights in another layout, too."""
    whole = folder / "model.safetensors"
    shards = object_at(read_json(folder / "model.safetensors.index.json"), "weight_map")
    return [whole] if whole.is_file() else [folder / name for name in sorted({str(name) for name in shards.values()})]


def _check_tensor(file: Path, name: str, entry: JsonObject, start: int) -> None:
    dtype, offsets = str(entry["dtype"]), entry["data_offsets"]
    if dtype not in _EXPONENTS or not isinstance(offsets, list):
        return
    integer, exponent = _EXPONENTS[dtype]
    first, end = (int(str(offset)) for offset in offsets)
    numbers = (end - first) // np.dtype(integer).itemsize
    step = _CHUNK_BYTES // np.dtype(integer).itemsize
    if numbers == 0:
        return
    # Offsets need not be multiples of the number's size, which a view of the mapped bytes does not need either.
    raw = np.memmap(file, np.uint8, "r", start + first, (end - first,))
    for at in range(0, numbers, step):
        width = np.dtype(integer).itemsize
        bits = np.frombuffer(raw[at * width : (at + step) * width].tobytes(), integer)
        wrong = np.flatnonzero((bits & integer(exponent)) == exponent)
        if len(wrong):
            raise InvalidData(
                f"{file.name}: the tensor {name!r} holds NaN or infinity (number {at + int(wrong[0])} of {numbers}): "
                "every logit would be NaN. Train or export the model again, or take an earlier checkpoint of it."
            )
