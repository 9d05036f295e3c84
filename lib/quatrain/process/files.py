"""Files that others may read at any moment: they are written whole, and read again when they change."""

import os
import time
from collections.abc import Sequence
from pathlib import Path

from quatrain.errors import InvalidInput

POLL_SECONDS = 1.0
_Stamp = tuple[int, int, int] | None


def write_whole(path: Path, text: str) -> None:
    """Replace the file, whole or not at all. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)


class WatchedFiles:
    """Some files, which are checked when `changed` is called, at most once a second, without a thread.

    Links are followed, so that the swap of a mounted Kubernetes Secret, which is one of links, is a change.
    """

    def __init__(self, paths: Sequence[Path], every: float = POLL_SECONDS) -> None:
        self._paths = tuple(paths)
        self._every = every
        self._seen = self._stamps()
        self._next_look = time.monotonic() + every

    def changed(self) -> bool:
        """Return whether a file changed since this last returned True."""
        now = time.monotonic()
        if now < self._next_look:
            return False
        self._next_look = now + self._every
        stamps = self._stamps()
        if stamps == self._seen:
            return False
        self._seen = stamps
        return True

    def read(self) -> list[bytes]:
        """Return the contents of all files. Raises InvalidInput naming the file that cannot be read."""
        contents = []
        for path in self._paths:
            try:
                contents.append(path.read_bytes())
            except OSError as error:
                raise InvalidInput(f"{path} cannot be read: {error.strerror}") from error
        return contents

    def _stamps(self) -> tuple[_Stamp, ...]:
        return tuple(_stamp(path) for path in self._paths)


def _stamp(path: Path) -> _Stamp:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size, info.st_ino
