"""Files that appear whole or not at all, and what a failing disk is called."""

import errno
import hashlib
import os
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from quatrain.errors import NotFound, Unavailable

CHUNK = 1 << 20


def disk_error(error: OSError, place: str) -> Unavailable:
    """Name what is wrong with the disk and how to mend it."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Unavailable(f"{place}: the disk is full; free space there or point it somewhere else")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Unavailable(f"{place}: no permission ({error.strerror}); check the owner and the mount")
    return Unavailable(f"{place}: {error}")


def read_file(path: Path) -> bytes:
    """All bytes of a file. Raises NotFound, Unavailable."""
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise disk_error(error, f"file {path}") from error


def write_file(path: Path, chunks: Iterable[bytes]) -> None:
    """Write a file through a temporary one beside it. Makes missing folders. Raises Unavailable.

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


def file_sha256(path: Path) -> str:
    """Lower-case hex sha256 of a file, streaming. Raises NotFound, Unavailable."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise NotFound(f"there is no file {path}") from error
    except OSError as error:
        raise disk_error(error, f"file {path}") from error
