"""Keeps downloads off a person's files: a record in each downloaded folder says what it was downloaded from.

Without its record a folder that holds anything is somebody's own, and with the record of another source it is another
model. Only `force` writes into either.
"""

import errno
import json
from dataclasses import dataclass
from pathlib import Path

from quatrain.errors import InvalidInput

RECORD = ".quatrain-download.json"
NAMED = 4
"""Most files that an error names."""


@dataclass(frozen=True)
class Target:
    """The folder of a download and what is downloaded, in words that are equal for the same thing.

    `force` replaces files of the same names and leaves the others.
    """

    folder: Path
    source: str
    force: bool = False


@dataclass(frozen=True)
class Record:
    """What a folder was downloaded from, and whether all of it is there."""

    source: str
    finished: bool


def read_record(folder: Path) -> Record | None:
    """Return the record of a folder; None when there is none that can be read."""
    try:
        found = json.loads((folder / RECORD).read_text())
        return Record(str(found["source"]), bool(found["finished"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def check_free(target: Target) -> None:
    """Raise InvalidInput, which names what is there, unless the folder is empty, missing, or holds the same thing."""
    folder = target.folder
    try:
        if folder.exists() and not folder.is_dir():
            raise InvalidInput(f"--to {folder}: that is a file, and a model is a folder of files; name another path")
        there = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    except OSError as error:
        raise unusable(error, folder) from error
    record = read_record(folder)
    if target.force or not there or (record is not None and record.source == target.source):
        return
    if record is not None:
        what = f"holds something else, {record.source}, where {target.source} was asked for"
    else:
        more = f" and {len(there) - NAMED} more" if len(there) > NAMED else ""
        what = f"holds files that were not downloaded by this command: {', '.join(there[:NAMED])}{more}"
    raise InvalidInput(f"--to {folder}: the folder {what}; name another folder, or replace what is there with --force")


def mark(target: Target, *, finished: bool = False) -> None:
    """Write the record, making the folder. Raises InvalidInput when that fails."""
    path = target.folder / RECORD
    try:
        target.folder.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"source": target.source, "finished": finished}) + "\n")
    except OSError as error:
        raise unusable(error, path) from error


def foreign_file(path: Path) -> InvalidInput:
    """Return the error for a file that is in the way and has another content."""
    return InvalidInput(
        f"{path}: this file is not the one of the download, so it was changed or is somebody's own; "
        "name another folder, or replace it with --force"
    )


def unusable(error: OSError, path: Path) -> InvalidInput:
    """Return an error that says why a path of this machine cannot be written, and what to do."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        why = "the disk is full; free some space, or name a folder on another disk. What is here already is kept"
    elif error.errno in (errno.ENOTDIR, errno.EEXIST):
        why = "a part of this path is a file, so no folder can be made there; name another path"
    elif error.errno == errno.EISDIR:
        why = "a folder has the name of a file of the download; name another path"
    elif error.errno == errno.ENOENT:
        why = "there is no such file or folder; check the path"
    elif error.errno == errno.ENAMETOOLONG:
        why = "the name is longer than this file system takes; name a shorter path"
    elif error.errno == errno.EROFS:
        why = "the file system is mounted for reading only; name a folder that you can write to"
    elif error.errno in (errno.EACCES, errno.EPERM):
        why = "you may not write there; name a folder of your own"
    else:
        why = f"writing failed ({error.strerror}); name another path"
    return InvalidInput(f"{path}: {why}", reason="TARGET_UNUSABLE")
