"""Files that appear whole or not at all, and the errors of a failing disk."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from quatrain.errors import NotFound, Unavailable

CHUNK = 1 << 20
ABANDONED_SECONDS = 24 * 3600.0


def disk_error(error: OSError, place: str) -> Unavailable:
    """Return an error that names what is wrong with the disk and how to fix it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"{place}: the disk is full; free space there or point it somewhere else")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(f"{place}: no permission ({error.strerror}); check the owner and the mount")
    return Unavailable(f"{place}: {error}")


def read_file(path: Path) -> bytes:
    """Return all bytes of a file. Raises NotFound, Unavailable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise disk_error(error, f"file {path}") from error


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file through a temporary one beside it, making missing folders. Raises Unavailable.

    Not flushed to the disk: for local copies, which are verified by their digest when they are used.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".partial-")
    except OSError as error:
        raise disk_error(error, f"folder {path.parent}") from error
    try:
        with os.fdopen(handle, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        raise disk_error(error, f"file {path}") from error
    finally:
        with suppress(FileNotFoundError):
            os.unlink(temporary)


def remove_abandoned(files: Iterable[Path]) -> list[Path]:
    """Delete those of `files`, all of one folder, that nothing was written to for a day, and return them.

    Their age is by the clock of the disk that they lie on. Raises Unavailable.
    """
    present = list(files)
    if not present:
        return []
    gone = []
    try:
        with tempfile.TemporaryFile(dir=present[0].parent) as now:
            time = os.fstat(now.fileno()).st_mtime
        for path in present:
            with suppress(FileNotFoundError):
                if time - path.stat().st_mtime > ABANDONED_SECONDS:
                    path.unlink()
                    gone.append(path)
    except OSError as error:
        raise disk_error(error, f"folder {present[0].parent}") from error
    return gone


def file_sha256(path: Path) -> str:
    """Return the lower-case hex sha256 of a file, streaming. Raises NotFound, Unavailable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise disk_error(error, f"file {path}") from error
