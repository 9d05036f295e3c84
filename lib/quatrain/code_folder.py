"""A folder of reward code as one object: the same files give the same bytes, so that their digest says what runs.

The object is a zip archive without compression, whose bytes depend on names and contents alone. Whoever unpacks one
trusts nothing in it: it may come from any client.
"""

import io
import struct
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from quatrain.errors import InvalidData

MAX_FILES = 200
MAX_BYTES = 8 * 2**20
MAX_NAME = 200
CODE_SUFFIXES = (".py", ".json", ".jsonl", ".txt", ".csv", ".tsv", ".yaml", ".yml", ".toml", ".md", ".regex")
"""Files that are taken: source code and what it reads. A model or a data set does not belong into a reward's folder."""
LEFT_OUT = ("__pycache__", "node_modules", "venv", "env", "site-packages")
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The first time that a zip archive can name."""


def is_folder(path: str) -> bool:
    """Return whether the path of a reward function names a folder: `FOLDER/:module:function`."""
    return folder_of(path) != ""


def folder_of(path: str) -> str:
    """Return `FOLDER` of `FOLDER/:module:function`; empty for a file or an installed module."""
    before, _, _ = path.rpartition(":")
    folder, _, module = before.rpartition(":")
    return folder if module and folder.endswith("/") else ""


def read_folder(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder that are uploaded, by their path in it.

    Hidden files, caches, links and files of other kinds are left out. Raises InvalidData when it has no Python file,
    too many files or too many bytes, or cannot be read.
    """
    files: dict[str, bytes] = {}
    size = 0
    try:
        for path in _walk(folder):
            size += path.stat().st_size
            if len(files) == MAX_FILES or size > MAX_BYTES:
                raise InvalidData(
                    f"{folder} has more than {MAX_FILES} files or {MAX_BYTES // 2**20} MiB of code and word lists (the "
                    f"first too many: {path.relative_to(folder)}); move the reward's files into a folder of their own"
                )
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise InvalidData(f"{error.filename or folder} cannot be read: {error.strerror}") from error
    if not any(name.endswith(".py") for name in files):
        raise InvalidData(f"{folder} has no .py file; name the folder that holds the function's module")
    return files


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return the files as one object."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(files):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.create_system = 3
            archive.writestr(entry, files[name])
    return packed.getvalue()


def unpack(data: bytes) -> dict[str, bytes]:
    """Return the files of an object that a client has packed. Raises InvalidData for anything else."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            entries = archive.infolist()
            if len(entries) > MAX_FILES or sum(entry.file_size for entry in entries) > MAX_BYTES:
                raise InvalidData(f"the folder has more than {MAX_FILES} files or {MAX_BYTES // 2**20} MiB")
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise InvalidData("the folder of a reward function is packed by another program than this client")
            files = {_plain(entry.filename): archive.read(entry) for entry in entries}
    except (zipfile.BadZipFile, RuntimeError, EOFError, ValueError, OSError, struct.error) as error:
        raise InvalidData(f"the upload is no folder of a reward function: {error}") from error
    if len(files) < len(entries) or any(str(up) in files for name in files for up in PurePosixPath(name).parents):
        raise InvalidData("the folder of a reward function has two files of one name")
    return files


def _walk(folder: Path) -> Iterator[Path]:
    """Yield the files to upload in the order of their names."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.name in LEFT_OUT or path.is_symlink():
            continue
        if path.is_dir():
            yield from _walk(path)
        elif path.is_file() and path.suffix.lower() in CODE_SUFFIXES:
            yield path


def _plain(name: str) -> str:
    """Return the name if it stays in the folder. Raises InvalidData."""
    path = PurePosixPath(name)
    inside = name == str(path) and not path.is_absolute() and ".." not in path.parts and name not in ("", ".")
    if not inside or len(name) > MAX_NAME or not name.isprintable() or "\\" in name:
        raise InvalidData(f"{name[:MAX_NAME]!r} is no plain path inside the folder of a reward function")
    return name
