"""Uploads: chunks into a part file, then, once the digest is right, into the store. It can be resumed."""

import asyncio
import contextlib
import hashlib
import re
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import BinaryIO
from weakref import WeakValueDictionary

from quatrain.errors import Corrupt, DeadlineExpired, InvalidInput
from quatrain.faults import fault_point
from quatrain.storage import ObjectStore
from quatrain.storage.files import disk_error, remove_abandoned
from quatrain.telemetry.logging import get_logger

log = get_logger("uploads")

DIGEST = re.compile(r"^[0-9a-f]{64}$")
CHUNK_LIMIT = 1024 * 1024
CHUNK_SECONDS = 60.0
PART = ".part"


def data_key(sha256: str) -> str:
    """Return the key of an uploaded file."""
    return f"data/sha256/{sha256}"


class Uploads:
    """Part files of one replica. A client that meets another replica starts again: nothing else is lost."""

    def __init__(self, store: ObjectStore, scratch: Path, max_bytes: int) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._parts = scratch / "uploads"
        self._parts.mkdir(parents=True, exist_ok=True)
        # Locks of the files that arrive now; each is dropped with its last user.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def received(self, sha256: str) -> tuple[bool, int]:
        """Return whether the file is stored, and how many of its bytes have arrived."""
        _check_digest(sha256)
        stat = await asyncio.to_thread(self._store.stat, data_key(sha256))
        if stat is not None:
            return True, stat.size
        part = self._part(sha256)
        return False, part.stat().st_size if part.exists() else 0

    async def take(self, sha256: str, size: int, chunks: AsyncIterator[tuple[int, bytes]]) -> int:
        """Append (offset, bytes) chunks and store the file when it is whole. Returns its size.

        Raises InvalidInput when the file is too large or a chunk does not follow on, Corrupt when the digest is wrong
        (the part is thrown away).
        """
        _check_digest(sha256)
        if size < 0:
            raise InvalidInput(f"size {size} is negative")
        if size > self._max_bytes:
            raise InvalidInput(
                f"a file of {size} bytes: this server takes at most {self._max_bytes} (orchestrator.max_upload_bytes); "
                "split it, or put it into a bucket that specs may name"
            )
        lock = self._locks.setdefault(sha256, asyncio.Lock())
        async with lock:
            stat = await asyncio.to_thread(self._store.stat, data_key(sha256))
            if stat is not None:
                return stat.size  # Another upload has stored it meanwhile.
            part = self._part(sha256)
            with _disk_errors(part), part.open("ab") as file:
                async for offset, data in _timely(chunks):
                    if len(data) > CHUNK_LIMIT:
                        raise InvalidInput(f"a chunk of {len(data)} bytes: at most {CHUNK_LIMIT} are taken")
                    if offset != file.tell():
                        raise InvalidInput(f"chunk at {offset}, but {file.tell()} bytes have arrived: ask GetUpload")
                    if offset + len(data) > size:
                        raise InvalidInput(f"more bytes than the {size} that were announced")
                    await asyncio.to_thread(_write, file, data)
                    fault_point("upload.between_chunks")
            if part.stat().st_size == size:
                await asyncio.to_thread(self._store_part, part, sha256)
            return size

    def remove_abandoned(self) -> None:
        """Delete part files that nothing was added to for a day, by the clock of the disk that they lie on."""
        parts = [part for part in self._parts.glob(f"*{PART}") if part.name.removesuffix(PART) not in self._locks]
        for part in remove_abandoned(parts):
            log.info("abandoned upload deleted", sha256=part.name.removesuffix(PART))

    def _store_part(self, part: Path, sha256: str) -> None:
        with part.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if digest != sha256:
            part.unlink()
            raise Corrupt(f"the uploaded bytes have sha256 {digest}, {sha256} was announced: upload again")
        fault_point("upload.before_store")
        self._store.put_file(data_key(sha256), part)
        fault_point("upload.after_store")
        part.unlink()

    def _part(self, sha256: str) -> Path:
        return self._parts / f"{sha256}{PART}"


@contextlib.contextmanager
def _disk_errors(part: Path) -> Iterator[None]:
    """Raise Unavailable, with what to do, for an error of the disk that the part file lies on."""
    try:
        yield
    except TimeoutError:  # An OSError too, but not one of the disk.
        raise
    except OSError as error:
        raise disk_error(error, f"uploads folder {part.parent}") from error


def _write(file: BinaryIO, data: bytes) -> None:
    file.write(data)
    file.flush()  # A full disk is an error of this chunk, not of the close.


async def _timely(chunks: AsyncIterator[tuple[int, bytes]]) -> AsyncIterator[tuple[int, bytes]]:
    """Yield the chunks. Raises DeadlineExpired when the next one is late: others may wait to send this file."""
    while True:
        try:
            async with asyncio.timeout(CHUNK_SECONDS) as clock:
                chunk = await anext(chunks, None)
        except TimeoutError as error:
            if not clock.expired():
                raise
            raise DeadlineExpired(f"no chunk for {CHUNK_SECONDS:g} s; go on from what GetUpload says") from error
        if chunk is None:
            return
        yield chunk


def _check_digest(sha256: str) -> None:
    if not DIGEST.fullmatch(sha256):
        raise InvalidInput(f"{sha256[:80]!r} is not a lower-case hex sha256")
