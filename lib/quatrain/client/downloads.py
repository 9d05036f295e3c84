"""Downloads folders: each file is written beside its path, checked against its sha256, and then renamed to it.

A download that broke off goes on where it stopped: the request says how many bytes of each file are here already.
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from quatrain.backoff import Backoff
from quatrain.errors import Corrupt, NotFound, Unavailable

PART = ".part"
TRIES = 5
BACKOFF = Backoff(first=0.2, longest=5.0)


class Chunk(Protocol):
    """A piece of a file, as DownloadResponse and DownloadCheckpointResponse have it."""

    path: str
    offset: int
    data: bytes
    size: int
    sha256: str


# Opens the stream of chunks, given how many bytes of each path are here.
Source = Callable[[dict[str, int]], AsyncGenerator[Any, None]]


@dataclass(frozen=True)
class _File:
    path: Path
    part: Path


async def download_folder(source: Source, folder: Path) -> list[Path]:
    """Download every file of `source` into `folder` and return their paths, sorted. Correct files there are kept.

    Raises Corrupt when a file does not match its digest after it was fetched anew, or when a path leads out of the
    folder; NotFound when nothing is sent; Unavailable when the connection stays broken.
    """
    failures = 0
    rejected: set[str] = set()
    while True:
        here = {path: size for path, size in (await asyncio.to_thread(_sizes, folder)).items() if path not in rejected}
        round = _Round(folder, rejected)
        try:
            async with contextlib.aclosing(source(here)) as chunks:
                async for chunk in chunks:
                    await asyncio.to_thread(round.take, chunk)
            await asyncio.to_thread(round.finish)
        except Unavailable:
            failures = 0 if round.fetched else failures + 1
            if failures == TRIES:
                raise
            await asyncio.sleep(BACKOFF.pause(failures + 1))
            continue
        if not round.wrong:
            if not round.done:
                raise NotFound(f"there is nothing to download into {folder}")
            return sorted(round.done)
        again = round.wrong & rejected
        if again:
            raise Corrupt(f"{', '.join(sorted(again))}: sha256 does not match after a whole download; try again later")
        rejected |= round.wrong


class _Round:
    """One stream of chunks. Files that were here and turn out wrong are removed and named in `wrong`."""

    def __init__(self, folder: Path, anew: set[str]) -> None:
        self._folder = folder
        self._anew = set(anew)
        self._current: Chunk | None = None
        self.done: list[Path] = []
        self.wrong: set[str] = set()
        self.fetched = 0

    def take(self, chunk: Chunk) -> None:
        """Write one chunk; the first chunk of the next file finishes the file before."""
        if self._current is not None and chunk.path != self._current.path:
            self.finish()
        self._current = chunk
        file = _file(self._folder, chunk.path)
        if chunk.path in self._anew:
            self._anew.discard(chunk.path)
            _remove(file)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        if not file.part.exists() and file.path.exists():
            file.path.rename(file.part)
        with file.part.open("r+b" if file.part.exists() else "wb") as out:
            if chunk.offset > out.seek(0, 2):
                raise Corrupt(f"{chunk.path}: the download skips to byte {chunk.offset}; try again")
            out.seek(chunk.offset)
            out.write(chunk.data)
            # The bytes that follow are void: the server sends the whole file again, or they are of another version.
            out.truncate()
        self.fetched += len(chunk.data)

    def finish(self) -> None:
        """Check the current file against its digest and rename it to its path."""
        chunk, self._current = self._current, None
        if chunk is None:
            return
        file = _file(self._folder, chunk.path)
        with file.part.open("rb") as data:
            digest = hashlib.file_digest(data, "sha256").hexdigest()
        if digest != chunk.sha256 or file.part.stat().st_size != chunk.size:
            _remove(file)
            self.wrong.add(chunk.path)
            return
        file.part.replace(file.path)
        self.done.append(file.path)


def _file(folder: Path, path: str) -> _File:
    parts = PurePosixPath(path).parts
    if not parts or path.startswith("/") or ".." in parts or "\\" in path or "\0" in path:
        raise Corrupt(f"the server names a file {path!r}, which would lie outside {folder}; nothing is written there")
    target = folder.joinpath(*parts)
    return _File(target, target.with_name(target.name + PART))


def _remove(file: _File) -> None:
    file.part.unlink(missing_ok=True)
    file.path.unlink(missing_ok=True)


def _sizes(folder: Path) -> dict[str, int]:
    """Return the bytes of each file here, whole or in part."""
    sizes: dict[str, int] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else []:
        if path.is_file():
            sizes[path.relative_to(folder).as_posix().removesuffix(PART)] = path.stat().st_size
    return sizes
