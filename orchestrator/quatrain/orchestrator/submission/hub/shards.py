"""Puts the shards of one data set together into one file, in their order."""

from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from quatrain.errors import InvalidData
from quatrain.storage.files import disk_error

_ROWS = 4096


def join_shards(uri: str, shards: Sequence[Path], target: Path) -> None:
    """Write the rows of all shards into `target`. Raises InvalidData, Unavailable."""
    suffix = target.suffix
    try:
        if suffix == ".parquet":
            _join_parquet(uri, shards, target)
        elif suffix in (".jsonl", ".ndjson"):
            _join_lines(shards, target)
        else:
            raise InvalidData(f"{uri} has {len(shards)} shards of {suffix}, which are not joined: name one file")
    except OSError as error:
        raise disk_error(error, f"the scratch folder, for {uri}") from error


def _join_parquet(uri: str, shards: Sequence[Path], target: Path) -> None:
    try:
        schema = pq.read_schema(shards[0])
        with pq.ParquetWriter(target, schema) as writer:
            for shard in shards:
                with pq.ParquetFile(shard) as file:
                    for batch in file.iter_batches(_ROWS):
                        writer.write_table(pa.Table.from_batches([batch]).cast(schema))
    except (pa.ArrowInvalid, ValueError) as error:
        raise InvalidData(f"{uri}: its shards cannot be read as one set: {error}") from error


def _join_lines(shards: Sequence[Path], target: Path) -> None:
    with target.open("wb") as joined:
        for shard in shards:
            with shard.open("rb") as file:
                last = b"\n"
                while piece := file.read(2**20):
                    joined.write(piece)
                    last = piece
            if not last.endswith(b"\n"):
                joined.write(b"\n")
