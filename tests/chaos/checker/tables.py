"""Sealed batches and tables as rows, read with pyarrow alone."""

import io
import json
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from tests.chaos.checker.history import Event, History
from tests.chaos.checker.objects import Missing, Objects, sha256

Row = dict[str, Any]


@dataclass(frozen=True)
class Batch:
    """A sealed batch or evaluation whose bytes are those that its event names."""

    event: Event
    rows: list[Row]

    @property
    def step(self) -> int:
        """PPO step."""
        return int(self.event.data["step"])

    @property
    def purpose(self) -> str:
        """What the rollout ids were made for."""
        return "rollout" if self.event.type == "batch_sealed" else "eval"

    def __str__(self) -> str:
        return str(self.event)


def read_named(objects: Objects, ref: dict[str, Any]) -> list[Row] | None:
    """Rows of a Parquet object that is there and has its digest; None otherwise, which is for I6 to say."""
    try:
        data = objects.get(ref["key"])
    except Missing:
        return None
    if sha256(data) != ref["sha256"]:
        return None
    try:
        rows: list[Row] = pq.read_table(io.BytesIO(data)).to_pylist()
    except (pa.ArrowException, OSError):
        return None
    return rows


def read_batches(objects: Objects, history: History, *types: str) -> list[Batch]:
    """The batches that these types of events name, as far as they can be read."""
    found = []
    for event in history.of(*types):
        rows = read_named(objects, event.data)
        if rows is not None:
            found.append(Batch(event, rows))
    return found


def canonical(value: Any) -> bytes:
    """The JSON that ids, seeds and digests are made from: sorted keys, no spaces, UTF-8."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
