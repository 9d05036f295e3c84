"""Downloads folders: each file is written beside its path, checked against its sha256, and then renamed to it.

A download that broke off goes on where it stopped: the request says how many bytes of each file are here already.
Nothing else in the folder is touched: a record in it says what was downloaded (`download_record`).
"""

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from quatrain.backoff import Backoff
from quatrain.client.download_record import RECORD, Target, check_free, foreign_file, mark, unusable
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


async def download_folder(source: Source, target: Target) -> list[Path]:
    """Download every file of `source` into the target's folder and return their paths, sorted.

    Correct files there are kept. Raises InvalidInput when the folder holds other files, which only `force` replaces, or
    cannot be written; Corrupt when a file does not match its digest after it was fetched anew, or when a path leads out
    of the folder; NotFound when nothing is sent; Unavailable when the connection stays broken.
    """
    folder = target.folder
    await asyncio.to_thread(check_free, target)
    failures = 0
    rejected: set[str] = set()
    while True:
        here = {path: size for path, size in (await asyncio.to_thread(_sizes, folder)).items() if path not in rejected}
        round = _Round(target, rejected)
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
            mark(target, finished=True)
            return sorted(round.done)
        again = round.wrong & rejected
        if again:
            raise Corrupt(f"{', '.join(sorted(again))}: sha256 does not match after a whole download; try again later")
        rejected |= round.wrong


class _Round:
    """One stream of chunks. Files that were here and turn out wrong are removed and named in `wrong`."""

    def __init__(self, target: Target, anew: set[str]) -> None:
        self._target = target
        self._anew = set(anew)
        self._current: Chunk | None = None
        self._kept = False
        self.done: list[Path] = []
        self.wrong: set[str] = set()
        self.fetched = 0

    def take(self, chunk: Chunk) -> None:
        """Write one chunk; the first chunk of the next file finishes the file before.

        Raises InvalidInput for a file of somebody else in the way, and for a folder that cannot be written.
        """
        if self._current is not None and chunk.path != self._current.path:
            self.finish()
        file = _file(self._target.folder, chunk.path)
        try:
            if self._current is None:
                self._begin(file, chunk)
            self._current = chunk
            if not self._kept:
                _write(file, chunk)
        except OSError as error:
            raise unusable(error, file.path) from error
        self.fetched += len(chunk.data)

    def _begin(self, file: _File, chunk: Chunk) -> None:
        """Look at what is in the place of a file before its first byte is written."""
        if chunk.path in self._anew:
            self._anew.discard(chunk.path)
            _remove(file)
        mark(self._target)
        file.path.parent.mkdir(parents=True, exist_ok=True)
        self._kept = file.path.is_file() and _matches(file.path, chunk)
        if not file.path.is_file() or self._kept:
            return
        if not self._target.force:
            raise foreign_file(file.path)
        # What is there may be the beginning of the right file: the server was told its size.
        file.path.replace(file.part)

    def finish(self) -> None:
        """Check the current file against its digest and rename it to its path. Raises InvalidInput."""
        chunk, self._current = self._current, None
        if chunk is None:
            return
        file = _file(self._target.folder, chunk.path)
        try:
            if not self._kept and not _matches(file.part, chunk):
                _remove(file)
                self.wrong.add(chunk.path)
                return
            if not self._kept:
                file.part.replace(file.path)
        except OSError as error:
            raise unusable(error, file.path) from error
        self.done.append(file.path)


def _write(file: _File, chunk: Chunk) -> None:
    with file.part.open("r+b" if file.part.exists() else "wb") as out:
        if chunk.offset > out.seek(0, 2):
            raise Corrupt(f"{chunk.path}: the download skips to byte {chunk.offset}; try again")
        out.seek(chunk.offset)
        out.write(chunk.data)
        # The bytes that follow are void: the server sends the whole file again, or they are of another version.
        out.truncate()


def _matches(path: Path, chunk: Chunk) -> bool:
    with path.open("rb") as data:
        digest = hashlib.file_digest(data, "sha256").hexdigest()
    return digest == chunk.sha256 and path.stat().st_size == chunk.size


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
        if path.is_file() and path.name != RECORD:
            sizes[path.relative_to(folder).as_posix().removesuffix(PART)] = path.stat().st_size
    return sizes
