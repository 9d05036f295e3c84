"""Temporary folders that do not outlive their process for long, even when that is killed."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from quatrain.telemetry.logging import get_logger

PREFIX = "quatrain-process-"

log = get_logger(__name__)


@contextmanager
def own_folder(parent: Path) -> Iterator[Path]:
    """Make a folder in `parent` for as long as the context lasts, and delete those of dead processes.

    A living process holds a lock on its folder, which the kernel releases however the process ends. Other users may
    look into the folder; what they must not see belongs in a closed folder inside. `parent` exists and is writable.
    """
    _sweep(parent)
    folder, lock = _make(parent)
    try:
        yield folder
    finally:
        _remove(folder)
        os.close(lock)


def _make(parent: Path) -> tuple[Path, int]:
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        lock = _lock(folder)
        if lock is not None:
            folder.chmod(0o755)
            return folder, lock


def _lock(folder: Path) -> int | None:
    """Return a descriptor that locks the folder; None when a process holds it, it is gone, or another user's."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    except OSError:
        return None
    with contextlib.suppress(OSError):
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Before it is locked, a new folder looks like that of a dead process: another one may have deleted it.
        here = os.stat(folder, follow_symlinks=False)
        if os.path.samestat(here, os.fstat(descriptor)) and here.st_uid == os.geteuid():
            return descriptor
    os.close(descriptor)
    return None


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            log.info("folder of a dead process deleted", folder=str(folder))
            _remove(folder)
            os.close(lock)


def _remove(folder: Path) -> None:
    # Uploaded code may have made files that are hard to remove, and a thread may still be writing.
    with contextlib.suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
