"""Folders and objects as chunks of at most 1 MiB."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from quatrain.orchestrator.plan import FolderRef
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


async def stream_folder(store: ObjectStore, folder: FolderRef) -> AsyncIterator[Chunk]:
    """All files of a folder in the order of their names. Raises NotFound, Corrupt, Unavailable."""
    prefix = prefix_of(folder.uri)
    files = await asyncio.to_thread(read_manifest, store, prefix, folder.digest)
    for path in sorted(files):
        entry = files[path]
        async for chunk in stream_object(store, f"{prefix}/{path}", path, entry.size, entry.sha256):
            yield chunk


async def stream_object(store: ObjectStore, key: str, path: str, size: int, sha256: str) -> AsyncIterator[Chunk]:
    """One object."""
    for offset in range(0, max(size, 1), CHUNK_BYTES):
        length = min(CHUNK_BYTES, size - offset)
        data = await asyncio.to_thread(store.get_range, key, offset, length) if length > 0 else b""
        yield Chunk(path, offset, data, size, sha256)
