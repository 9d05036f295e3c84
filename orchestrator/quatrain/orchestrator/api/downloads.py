"""Folders and objects as chunks of at most 1 MiB."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace

from quatrain.refs import ModelRef
from quatrain.storage import ObjectStore
from quatrain.storage.folders import prefix_of, read_manifest

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Chunk:
    """A piece of a file; an empty file is one chunk without data."""

    path: str
    offset: int
    data: bytes
    size: int
    sha256: str


async def stream_folder(store: ObjectStore, folder: ModelRef, received: Mapping[str, int]) -> AsyncIterator[Chunk]:
    """Yield all files of a folder in the order of their names, each from the bytes that the caller has `received`.

    Raises NotFound, Corrupt, Unavailable.
    """
    prefix = prefix_of(folder.uri)
    files = await asyncio.to_thread(read_manifest, store, prefix, folder.digest)
    for path in sorted(files):
        entry = files[path]
        whole = Chunk(path, min(max(0, received.get(path, 0)), entry.size), b"", entry.size, entry.sha256)
        async for chunk in stream_object(store, f"{prefix}/{path}", whole):
            yield chunk


async def stream_object(store: ObjectStore, key: str, first: Chunk) -> AsyncIterator[Chunk]:
    """Yield one object from the offset of `first` on; when nothing is left to send, `first` itself says so."""
    if first.offset >= first.size:
        yield first
    for offset in range(first.offset, first.size, CHUNK_BYTES):
        length = min(CHUNK_BYTES, first.size - offset)
        data = await asyncio.to_thread(store.get_range, key, offset, length)
        yield replace(first, offset=offset, data=data)
