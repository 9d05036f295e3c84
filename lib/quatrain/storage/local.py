"""Objects as files of a local folder: the store of a laptop and of tests.

Creation is a temporary file, fsync, link(2), fsync of the folder: link fails when the name exists, on every local
file system and from any number of processes, and after a power loss an object is there whole or not at all.
"""

import builtins
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from typing_extensions import override

from quatrain.errors import InvalidInput, NotFound, Unavailable
from quatrain.storage.files import CHUNK, disk_error, remove_abandoned, write_file
from quatrain.storage.keys import check_key, check_prefix, check_range
from quatrain.storage.protocol import ObjectStat, ObjectStore

PARTIAL = ".partial"  # check_key refuses keys with a leading dot, so no object can lie there
_FOLDER_TRIES = 10


class LocalStore(ObjectStore):
    """An `ObjectStore` in one folder, which is made when missing. Several processes may share it.

    A put costs two flushes (file and folder), plus one for each folder that is new. Raises Unavailable when the
    folder cannot be made.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(os.path.abspath(root))
        self._partial = self._root / PARTIAL
        try:
            self._partial.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise disk_error(error, self.name) from error
        remove_abandoned(self._partial.iterdir())  # of processes that were killed while they wrote

    @property
    @override
    def name(self) -> str:
        return f"local folder {self._root}"

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        target = self._path(key)
        with self._disk(key):
            if target.is_file():
                _flush(target.parent)  # the process that created it may not have flushed its name yet
                return False
            with self._temporary([data]) as temporary:
                try:
                    self._into_folder(target, lambda: os.link(temporary, target))
                except FileExistsError:
                    if target.is_dir():
                        raise self._clash(key) from None
                    _flush(target.parent)
                    return False
        return True

    @override
    def put(self, key: str, data: bytes) -> None:
        self._replace(key, iter([data]))

    @override
    def put_file(self, key: str, path: Path) -> None:
        try:
            with path.open("rb") as source:
                self._replace(key, iter(lambda: source.read(CHUNK), b""))
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise disk_error(error, f"file {path}") from error

    @override
    def get(self, key: str) -> bytes:
        path = self._path(key)
        with self._disk(key):
            return path.read_bytes()

    @override
    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        path = self._path(key)
        with self._disk(key), path.open("rb") as file:
            file.seek(start)
            return file.read(length)

    @override
    def get_file(self, key: str, path: Path) -> None:
        source_path = self._path(key)
        with self._disk(key):
            source = source_path.open("rb")
        with source:
            write_file(path, iter(lambda: source.read(CHUNK), b""))

    @override
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> builtins.list[ObjectStat]:
        check_prefix(prefix)
        found: builtins.list[ObjectStat] = []
        if limit is not None and limit <= 0:
            return found
        folder = prefix.rpartition("/")[0]
        with self._disk(prefix):
            for key, entry in self._walk(folder, prefix.encode(), start_after.encode()):
                with suppress(FileNotFoundError):  # deleted since the folder was read
                    status = entry.stat()
                    found.append(ObjectStat(key, status.st_size, status.st_mtime))
                if limit is not None and len(found) >= limit:
                    break
        return found

    @override
    def delete(self, key: str) -> None:
        path = self._path(key)
        with self._disk(key):
            try:
                path.unlink()
            except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
                return
            _flush(path.parent)
            self._remove_empty(path.parent)

    @override
    def stat(self, key: str) -> ObjectStat | None:
        path = self._path(key)
        with self._disk(key):
            try:
                status = path.stat()
            except (FileNotFoundError, NotADirectoryError):
                return None
            return None if path.is_dir() else ObjectStat(key, status.st_size, status.st_mtime)

    def _path(self, key: str) -> Path:
        return self._root / check_key(key)

    def _clash(self, key: str) -> InvalidInput:
        return InvalidInput(f"{self.name}: object key {key} is a folder of other keys, or lies under an object")

    @contextmanager
    def _disk(self, key: str) -> Iterator[None]:
        """Turn what the file system says into our errors."""
        try:
            yield
        except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
            raise NotFound(f"{self.name} has no object {key}") from error
        except OSError as error:
            raise disk_error(error, f"{self.name}, object {key}") from error

    def _replace(self, key: str, chunks: Iterator[bytes]) -> None:
        target = self._path(key)
        with self._disk(key), self._temporary(chunks) as temporary:
            try:
                self._into_folder(target, lambda: os.replace(temporary, target))
            except IsADirectoryError:
                raise self._clash(key) from None

    @contextmanager
    def _temporary(self, chunks: "builtins.list[bytes] | Iterator[bytes]") -> Iterator[str]:
        """Yield a flushed file with these bytes, which is deleted afterwards unless it was renamed."""
        self._partial.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=self._partial)
        try:
            with os.fdopen(handle, "wb") as file:
                for chunk in chunks:
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fdatasync(file.fileno())
            yield temporary
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary)

    def _into_folder(self, target: Path, name_it: Callable[[], None]) -> None:
        """Give a finished file its name and flush the folder; `delete` may take empty folders away meanwhile."""
        for _ in range(_FOLDER_TRIES):
            try:
                self._make_folder(target.parent)
                name_it()
                _flush(target.parent)
                return
            except FileNotFoundError:
                continue
            except NotADirectoryError as error:
                raise self._clash(str(target.relative_to(self._root))) from error
        raise Unavailable(f"{self.name}: folder {target.parent} disappears again and again")

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        with suppress(FileExistsError):
            folder.mkdir()
        if not folder.is_dir():
            raise NotADirectoryError(str(folder)) if folder.exists() else FileNotFoundError(str(folder))
        _flush(folder.parent)

    def _remove_empty(self, folder: Path) -> None:
        while folder != self._root:
            try:
                folder.rmdir()
            except OSError:  # not empty, or gone already
                return
            folder = folder.parent

    def _walk(self, folder: str, prefix: bytes, start_after: bytes) -> Iterator[tuple[str, "os.DirEntry[str]"]]:
        """Yield the files under a folder in order of their keys' bytes, without folders before `start_after`."""
        try:
            with os.scandir(self._root / folder if folder else self._root) as scan:
                entries = [(f"{folder}/{entry.name}" if folder else entry.name, entry) for entry in scan]
        except (FileNotFoundError, NotADirectoryError):
            return
        # A folder sorts as its name with the slash: `a.b` (0x2e) comes before `a/b` (0x2f), `a0` after it.
        ordered = sorted(
            (f"{key}/".encode() if entry.is_dir() else key.encode(), key, entry)
            for key, entry in entries
            if folder or not key.startswith(".")
        )
        for encoded, key, entry in ordered:
            if not encoded.startswith(prefix) and not prefix.startswith(encoded):
                continue
            if encoded.endswith(b"/"):
                if encoded > start_after or start_after.startswith(encoded):
                    yield from self._walk(key, prefix, start_after)
            elif encoded > start_after and encoded.startswith(prefix):
                yield key, entry


def _flush(folder: Path) -> None:
    """Flush the names in the folder. One that was emptied and removed meanwhile has nothing to flush."""
    try:
        handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    except FileNotFoundError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
