"""I12: no number in checkpoints, policies, batches and events is NaN or infinite. Files are read by hand."""

import json
import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
from tests.chaos.checker.history import parse_json
from tests.chaos.checker.kept import Named, named_objects, read_folder
from tests.chaos.checker.released import MANIFEST
from tests.chaos.checker.tables import read_named
from tests.chaos.checker.verdict import Case, Part, always

FLOATS: dict[str, np.dtype[Any]] = {"F64": np.dtype("<f8"), "F32": np.dtype("<f4"), "F16": np.dtype("<f2")}
BFLOAT16_EXPONENT = 0x7F80
"""All bits of the exponent: infinity or NaN."""


def bad_tensors(data: bytes) -> Iterator[str]:
    """Names of the tensors of a safetensors file that hold a non-finite number. Raises ValueError when it is none."""
    length = int.from_bytes(data[:8], "little")
    if length > len(data) - 8:
        raise ValueError("the header is longer than the file")
    header: dict[str, Any] = json.loads(data[8 : 8 + length])
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        if len(raw) != end - start:
            raise ValueError(f"tensor {name} is cut off")
        if not _finite(entry["dtype"], raw):
            yield name


def _finite(dtype: str, raw: bytes) -> bool:
    if dtype in FLOATS:
        return bool(np.isfinite(np.frombuffer(raw, dtype=FLOATS[dtype])).all())
    if dtype == "BF16":
        bits: npt.NDArray[np.uint16] = np.frombuffer(raw, np.dtype("<u2"))
        return not bool(((bits & BFLOAT16_EXPONENT) == BFLOAT16_EXPONENT).any())
    return True


def _written(case: Case) -> Iterator[Named]:
    """Checkpoints and model folders that the job itself wrote, each once."""
    seen = set()
    for named in named_objects(case.history):
        if named.revision and named.key.endswith(MANIFEST) and named.key not in seen:
            seen.add(named.key)
            yield named


def _nothing_written(case: Case) -> str:
    return "" if next(_written(case), None) else "the job wrote no checkpoint and no model"


def _state(case: Case) -> Iterator[str]:
    for named in _written(case):
        try:
            files = read_folder(case.objects, named)
        except ValueError:  # For I6 to say.
            continue
        for path, data in files.items():
            for text in _bad_file(path, data):
                yield f"{named.by}: {named.key.removesuffix(MANIFEST)}/{path}: {text}"


def _bad_file(path: str, data: bytes) -> Iterator[str]:
    try:
        if path.endswith(".safetensors"):
            for name in bad_tensors(data):
                yield f"tensor {name} is not finite"
        elif path.endswith(".json"):
            not_finite: list[str] = []
            parse_json(data, "it", not_finite)
            yield from not_finite
    except (ValueError, KeyError) as error:
        yield f"it cannot be read: {error}"


def _rows(case: Case) -> Iterator[str]:
    for batch in case.sealed:
        for row in batch.rows:
            numbers = [*row["logprobs"], *row["ref_logprobs"], row["score"] or 0.0]
            if row["status"] == "rollout" and not all(map(math.isfinite, numbers)):
                yield f"{batch}: rollout {row['rollout_id']} has a number that is not finite"
    for event in case.history.of("step_completed"):
        if not event.data.get("tokens"):
            continue
        for row in read_named(case.objects, event.data["tokens"]) or ():
            numbers = [number for values in row.values() if isinstance(values, list) for number in values]
            if not all(map(math.isfinite, numbers)):
                yield f"{event}: the tokens of rollout {row['rollout_id']} have a number that is not finite"


def _events(case: Case) -> Iterator[str]:
    yield from case.history.not_finite


PARTS = [
    Part("I12", "state", _nothing_written, _state),
    Part("I12", "rows", always, _rows),
    Part("I12", "events", always, _events),
]
