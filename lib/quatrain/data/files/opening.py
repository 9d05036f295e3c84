"""Opens a data file: unpacks it where it is compressed, and tells its format by its content before its name.

One function decides for `data validate`, the dry run and the job, so a file means the same to all of them.
"""

import bz2
import gzip
import io
import json
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import Any, BinaryIO

import pyarrow as pa

from quatrain.errors import InvalidData

FILE_FORMATS = ("jsonl", "json", "csv", "parquet", "arrow")
_EXTENSIONS = {
    **{".jsonl": "json", ".ndjson": "json", ".json": "json", ".csv": "csv", ".tsv": "csv", ".parquet": "parquet"},
    **{".arrow": "arrow", ".feather": "arrow"},
}
_PACKED = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bzip2", b"\xfd7zXZ\x00": "xz"}
_PACKED_NAMES = (".gz", ".zst", ".bz2", ".xz")
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it and give the file inside",
    b"version https://git-lfs": "a Git LFS pointer, not the data itself: run `git lfs pull` where it comes from",
    b"<!DOCTYPE": "a web page, not data: download the file itself",
    b"<html": "a web page, not data: download the file itself",
    b"\xff\xfe": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\xfe\xff": "UTF-16 text: convert it with `iconv -f UTF-16 -t UTF-8`",
    b"\x80\x02": "a pickle, which can run code when it is opened and is never read: save it as JSON Lines or Parquet",
    b"\x80\x04": "a pickle, which can run code when it is opened and is never read: save it as JSON Lines or Parquet",
}
_HEAD = 4096
MIN_UNPACKED, MAX_GROWTH = 2**30, 200
"""A file may unpack to so many bytes, or to so many times its size: more is a bomb, not data."""


def unpacked_limit(path: Path) -> int:
    """Return the bytes that a file may unpack to."""
    return max(MIN_UNPACKED, MAX_GROWTH * path.stat().st_size)


@contextmanager
def open_unpacked(path: Path, name: str) -> Iterator[tuple[BinaryIO, BinaryIO]]:
    """Open a file: yield it unpacked when its content is compressed, and as it lies on the disk. Raises InvalidData."""
    packing = None
    try:
        packing = _packing(path)
        with path.open("rb") as raw:
            if packing is None:
                yield raw, raw
                return
            with _unpack(raw, packing) as unpacked:
                bounded: Any = _Bounded(unpacked, unpacked_limit(path), name)
                yield io.BufferedReader(bounded), raw
    except (EOFError, zlib.error, lzma.LZMAError, gzip.BadGzipFile, pa.ArrowException) as error:
        text = f"{name} is not a sound {packing} file: {error}. It may be cut short; copy it again."
        raise InvalidData(text) from None
    except OSError as error:
        if packing is not None and error.errno is None:  # pyarrow's word for a cut stream
            text = f"{name} is not a sound {packing} file: {error}. It may be cut short; copy it again."
            raise InvalidData(text) from None
        raise InvalidData(f"{name} cannot be read: {error.strerror or error}.") from error


def detect_format(path: Path, name: str, asked: str | None = None) -> str:
    """Return json, csv, parquet or arrow. Raises InvalidData: missing, empty, of a foreign kind, or unknown."""
    if not path.is_file():
        raise InvalidData(f"The data file {name} does not exist.")
    if path.stat().st_size == 0:
        raise InvalidData(f"The data file {name} is empty.")
    with open_unpacked(path, name) as (stream, _):
        head = stream.read(_HEAD)
    found = _by_content(head, name)
    if found is None and asked is not None:
        found = "json" if asked == "jsonl" else asked
    found = found or _EXTENSIONS.get(_extension(name))
    if found is None:
        raise InvalidData(
            f"The format of {name} is not known: its content is neither JSON nor Parquet nor Arrow, and its name does "
            "not end in .jsonl, .json, .csv, .tsv, .parquet or .arrow. Give `format`."
        )
    if found in ("parquet", "arrow") and _packing(path) is not None:
        raise InvalidData(f"{name} is a {found} file inside a {_packing(path)} file, which is packed twice: unpack it.")
    return found


def _by_content(head: bytes, name: str) -> str | None:
    for mark, what in _FOREIGN.items():
        if head.startswith(mark):
            raise InvalidData(f"{name} is {what}.")
    if head.startswith(b"PAR1"):
        return "parquet"
    if head.startswith((b"ARROW1", b"\xff\xff\xff\xff")):
        return "arrow"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    named = _EXTENSIONS.get(_extension(name))
    # The header of a CSV file may begin with a bracket; that of no other text does.
    if text.startswith((b"{", b"[")) and (named != "csv" or _is_object(text)):
        return "json"
    if named == "json" and text and not any(line.lstrip().startswith((b"{", b"[")) for line in text.splitlines()):
        raise InvalidData(
            f"{name} holds no JSON: it begins with {text[:40].decode('utf-8', 'replace')!r}. If it is a table, name it "
            ".csv."
        )
    return None


def _is_object(text: bytes) -> bool:
    """Return whether the first line is an object of JSON."""
    try:
        return isinstance(json.loads(text.splitlines()[0]), dict)
    except (ValueError, RecursionError):
        return False


def _extension(name: str) -> str:
    suffixes = [suffix.lower() for suffix in PurePath(name).suffixes]
    while suffixes and suffixes[-1] in _PACKED_NAMES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def _packing(path: Path) -> str | None:
    with path.open("rb") as file:
        head = file.read(8)
    return next((packing for mark, packing in _PACKED.items() if head.startswith(mark)), None)


def _unpack(raw: BinaryIO, packing: str) -> BinaryIO:
    unpacked: Any
    match packing:
        case "gzip":
            unpacked = gzip.GzipFile(fileobj=raw)
        case "bzip2":
            unpacked = bz2.BZ2File(raw)
        case "xz":
            unpacked = lzma.LZMAFile(raw)  # noqa: SIM115  the caller closes it
        case _:
            unpacked = pa.CompressedInputStream(raw, "zstd")
    stream: BinaryIO = unpacked
    return stream


class _Bounded(io.RawIOBase):
    """A stream that ends with InvalidData beyond its bound."""

    def __init__(self, stream: BinaryIO, limit: int, name: str) -> None:
        self._stream = stream
        self._left = limit
        self._name = name

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: bytearray) -> int:  # type: ignore[override]
        """Read into the buffer and return the number of bytes. Raises InvalidData beyond the bound."""
        data = self._stream.read(len(buffer))
        self._left -= len(data)
        if self._left < 0:
            raise InvalidData(
                f"{self._name} unpacks to far more than such data has; unpack it and give the file inside."
            )
        buffer[: len(data)] = data
        return len(data)
