"""Folders (models, checkpoints) as objects: PREFIX/<files> and PREFIX/manifest.json, which is written last.

The manifest is canonical JSON `{"files": {path: {"sha256", "size"}}}`; its sha256 is the digest of the folder, so one
digest vouches for every byte. A prefix without a manifest is an upload that never finished and is never read.
"""

import errno
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from quatrain.config import ready_folder
from quatrain.digests import canonical_json, parse_json, sha256_hex
from quatrain.errors import AlreadyExists, Corrupt, InvalidData, InvalidInput, NotFound
from quatrain.faults import fault_point
from quatrain.refs import ModelRef
from quatrain.storage.corrupt_reads import QUICK_RETRY_PAUSES, retry_corrupt_reads
from quatrain.storage.files import disk_error, file_sha256
from quatrain.storage.keys import check_key
from quatrain.storage.protocol import ObjectStore, pages

MANIFEST = "manifest.json"
_HEX = frozenset("0123456789abcdef")


@dataclass(frozen=True)
class FileEntry:
    """One file of a manifest: lower-case hex sha256 and size in bytes."""

    sha256: str
    size: int


def upload_folder(store: ObjectStore, prefix: str, path: Path) -> str:
    """Write every file under `path`, then the manifest, and return the folder's digest.

    The prefix must be this writer's own; uploading the same bytes again is no error, other bytes are AlreadyExists.
    Links to files are followed. Raises InvalidData (no folder, no files, a file called manifest.json), Unavailable.
    """
    return _upload(store, check_key(prefix), path, describe_folder(path))


def upload_model_folder(store: ObjectStore, path: Path) -> ModelRef:
    """Write a folder under `models/<digest>`; one that is there already is not written again."""
    files = describe_folder(path)
    model = ModelRef.by_digest(sha256_hex(manifest_bytes(files)))
    prefix = prefix_of(model.uri)
    if store.stat(f"{prefix}/{MANIFEST}") is None:
        _upload(store, prefix, path, files)
    return model


def describe_folder(path: Path) -> dict[str, FileEntry]:
    """Return digest and size of every file under `path`, by slash path. Raises InvalidData."""
    if not path.is_dir():
        raise InvalidData(f"there is no folder {path}")
    files: dict[str, FileEntry] = {}
    for file in sorted(path.rglob("*")):
        if not file.is_file():
            continue
        name = file.relative_to(path).as_posix()
        if name == MANIFEST:
            raise InvalidData(f"{file}: the name {MANIFEST} is taken by the list of files; rename or remove the file")
        files[name] = FileEntry(file_sha256(file), file.stat().st_size)
    if not files:
        raise InvalidData(f"folder {path} has no files")
    return files


def manifest_bytes(files: dict[str, FileEntry]) -> bytes:
    """Return the manifest of these files, whose sha256 is the folder's digest."""
    return canonical_json(
        {"files": {name: {"sha256": entry.sha256, "size": entry.size} for name, entry in files.items()}}
    )


def read_manifest(store: ObjectStore, prefix: str, digest: str) -> dict[str, FileEntry]:
    """Return the files of a folder, in path order. Raises NotFound (nothing there, or never finished), Corrupt."""
    key = f"{prefix}/{MANIFEST}"
    data = read_object(store, key, digest)
    try:
        files = {str(name): _entry(value) for name, value in sorted(parse_json(data)["files"].items())}
        for name in files:
            check_key(f"{prefix}/{name}")
    except (ValueError, KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise Corrupt(f"{store.name}: {key} is no manifest: {error}") from error
    return files


def read_object(store: ObjectStore, key: str, sha256: str, pauses: Sequence[float] | None = None) -> bytes:
    """Return an object whose digest is known. `pauses`: see `retry_corrupt_reads`. Raises NotFound, Corrupt."""

    def read() -> bytes:
        data = store.get(key)
        _check_digest(store, key, sha256_hex(data), sha256)
        return data

    return retry_corrupt_reads(read, pauses)


def read_file(store: ObjectStore, key: str, sha256: str, target: Path) -> None:
    """Write an object whose digest is known into a file. Raises NotFound, Corrupt, Unavailable."""

    def read() -> None:
        store.get_file(key, target)
        _check_digest(store, key, file_sha256(target), sha256)

    retry_corrupt_reads(read)


def _check_digest(store: ObjectStore, key: str, found: str, sha256: str) -> None:
    if found != sha256:
        raise Corrupt(f"{store.name}: {key} has sha256 {found}, expected {sha256}; the object was damaged or replaced")


def is_folder(store: ObjectStore, prefix: str, digest: str) -> bool:
    """Return whether the whole folder at `prefix` is the one of this digest. Raises NotFound, Unavailable."""
    try:
        read_object(store, f"{prefix}/{MANIFEST}", digest, QUICK_RETRY_PAUSES)
    except Corrupt:
        return False
    return True


def delete_prefix(store: ObjectStore, prefix: str) -> None:
    """Delete the objects under a prefix that one pass finds. Raises Unavailable."""
    for page in pages(store, prefix):
        for stat in page:
            store.delete(stat.key)


def prefix_of(uri: str) -> str:
    """Return where a model reference lies in the store: `store:x` is x, `sha256:D` is models/D. Raises InvalidInput."""
    scheme, _, rest = uri.partition(":")
    if scheme == "store":
        return check_key(rest)
    if scheme == "sha256":
        if len(rest) != 64 or not _HEX.issuperset(rest):
            raise InvalidInput(f"model reference {uri!r}: after sha256: come 64 lower-case hex digits")
        return f"models/{rest}"
    raise InvalidInput(f"model reference {uri!r} is not in the store: it starts with store: or sha256:")


def _upload(store: ObjectStore, prefix: str, path: Path, files: dict[str, FileEntry]) -> str:
    manifest = manifest_bytes(files)
    digest = sha256_hex(manifest)
    key = f"{prefix}/{MANIFEST}"
    # Checked before any file is written: another folder that is whole must stay whole.
    if store.stat(key) is None:
        for name in files:
            store.put_file(f"{prefix}/{name}", path / name)
            fault_point("folder.between_files")
        fault_point("folder.before_manifest")
        if store.put_if_absent(key, manifest):
            return digest
    if not is_folder(store, prefix, digest):
        raise AlreadyExists(f"{store.name}: {prefix} holds another folder already")
    return digest


def _entry(value: Any) -> FileEntry:
    entry = FileEntry(value["sha256"], value["size"])
    if not isinstance(entry.size, int) or not isinstance(entry.sha256, str):
        raise TypeError(f"a file is described as {value!r}")
    return entry


def fetch_folder(store: ObjectStore, prefix: str, files: dict[str, FileEntry], into: Path) -> None:
    """Read the files of a manifest into a folder and verify each. Raises NotFound, Corrupt, Unavailable."""
    for name, entry in files.items():
        read_file(store, f"{prefix}/{name}", entry.sha256, into / name)


def verify_folder(path: Path, files: dict[str, FileEntry]) -> bool:
    """Return whether every file of the manifest is there with its size and digest."""
    try:
        return all(
            (path / name).stat().st_size == entry.size and file_sha256(path / name) == entry.sha256
            for name, entry in files.items()
        )
    except (NotFound, FileNotFoundError):
        return False


class FolderCache:
    """Verified local copies of folders, least recently used ones removed when they exceed `max_bytes`.

    Safe from several threads; several processes may share `root`. A copy that was fetched or handed out within
    `grace` seconds is never removed, because its reader may still be opening files, so the bound may be exceeded for
    that long. Ages are those of the folder's time stamp, which other processes see too. Raises InvalidInput when `root`
    cannot be written to.
    """

    def __init__(self, store: ObjectStore, root: Path, max_bytes: int, *, grace: float = 120.0) -> None:
        self._store = store
        self._root = ready_folder(root, "compute.cache_dir")
        self._max_bytes = max_bytes
        self._grace = grace
        self._lock = threading.Lock()
        self._fetching: dict[str, threading.Lock] = {}
        self._verified: set[str] = set()

    def fetch(self, uri: str, digest: str) -> Path:
        """Return a local folder with the files of `uri`, each checked against the manifest whose sha256 is `digest`.

        `file:///ABS` is returned as it is. Raises InvalidInput (reference), NotFound, Corrupt, Unavailable.
        """
        if uri.startswith("file://"):
            return _local_folder(uri)
        prefix = prefix_of(uri)
        if len(digest) != 64 or not _HEX.issuperset(digest):
            raise InvalidInput(f"model reference {uri}: digest {digest!r} is not 64 lower-case hex digits")
        with self._lock:
            fetching = self._fetching.setdefault(digest, threading.Lock())
        with fetching:
            folder = self._root / digest
            if not self._usable(folder, prefix, digest):
                self._download(folder, prefix, digest)
            self._verified.add(digest)
            with suppress(FileNotFoundError):
                os.utime(folder)
            self._evict(keep=digest)
            return folder

    def _usable(self, folder: Path, prefix: str, digest: str) -> bool:
        """Return whether the copy is whole; it is hashed on first use, since a power loss may leave torn files."""
        if not folder.is_dir():
            return False
        if digest in self._verified:
            return True
        if verify_folder(folder, read_manifest(self._store, prefix, digest)):
            return True
        shutil.rmtree(folder, ignore_errors=True)
        return False

    def _download(self, folder: Path, prefix: str, digest: str) -> None:
        files = read_manifest(self._store, prefix, digest)
        try:
            partial = Path(tempfile.mkdtemp(dir=self._root, prefix=".partial-"))
        except OSError as error:
            raise disk_error(error, f"cache folder {self._root}") from error
        try:
            fetch_folder(self._store, prefix, files, partial)
            partial.chmod(0o755)
            partial.rename(folder)
        except OSError as error:
            # Another process was faster: its copy was verified as well.
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise disk_error(error, f"cache folder {folder}") from error
        finally:
            shutil.rmtree(partial, ignore_errors=True)

    def _evict(self, keep: str) -> None:
        with self._lock:
            copies = sorted((_age(path), path) for path in self._root.iterdir() if path.name != keep)
            total = _size(self._root / keep) + sum(_size(path) for _, path in copies)
            for age, path in reversed(copies):
                if total <= self._max_bytes or age < self._grace:
                    break
                total -= _size(path)
                self._verified.discard(path.name)
                shutil.rmtree(path, ignore_errors=True)


def _local_folder(uri: str) -> Path:
    folder = Path(uri.removeprefix("file://"))
    if not folder.is_absolute():
        raise InvalidInput(f"model reference {uri!r}: a file:// reference is an absolute path, file:///models/x")
    if not folder.is_dir():
        raise NotFound(f"model reference {uri}: there is no folder {folder}")
    return folder


def _age(path: Path) -> float:
    with suppress(FileNotFoundError):
        return max(0.0, time.time() - path.stat().st_mtime)
    return 0.0


def _size(path: Path) -> int:
    total = 0
    for file in path.rglob("*"):
        with suppress(FileNotFoundError):
            total += file.stat().st_size if file.is_file() else 0
    return total
