"""`python -m quatrain.storage.copy FROM TO` copies a whole store: backup, restore, a move to another server.

FROM and TO are folders or buckets, `http[s]://HOST:PORT/BUCKET`. AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY open
buckets; TO_ACCESS_KEY_ID and TO_SECRET_ACCESS_KEY open TO where it has other keys. An object that TO has already, of
the same size and written later, is not copied again, so an interrupted copy can be resumed. Every object that is copied
is read back from TO and compared. No orchestrator may run on either store meanwhile.
"""

import argparse
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from quatrain.errors import InvalidInput, QuatrainError
from quatrain.storage.files import file_sha256
from quatrain.storage.folders import read_file
from quatrain.storage.local import LocalStore
from quatrain.storage.protocol import ObjectStat, ObjectStore, pages
from quatrain.storage.s3 import S3Address, S3Store

THREADS = 8


@dataclass(frozen=True)
class Copied:
    """The result of a copy: objects and bytes that it wrote, objects that were there, objects that it removed."""

    written: int
    size: int
    present: int
    removed: int


def copy_store(source: ObjectStore, target: ObjectStore, *, check: bool = False, delete: bool = False) -> Copied:
    """Make `target` hold the objects of `source`.

    `check`: compare also what is there, byte by byte; `delete`: remove what `source` does not have. Raises Unavailable,
    NotFound (an object went meanwhile), Corrupt (what was read back is not what was written).
    """
    there = {stat.key: stat for page in pages(target, "") for stat in page}
    keys: set[str] = set()

    def objects() -> Iterator[ObjectStat]:
        for page in pages(source, ""):
            keys.update(stat.key for stat in page)
            yield from page

    with tempfile.TemporaryDirectory(prefix="quatrain-copy-") as folder, ThreadPoolExecutor(THREADS) as threads:

        def copy(stat: ObjectStat) -> int | None:
            known = there.get(stat.key)
            same = known is not None and known.size == stat.size and known.modified >= stat.modified
            if same and not check:
                return None
            with tempfile.TemporaryDirectory(dir=folder) as own:
                return _copy_object(source, target, stat.key, known is not None, Path(own))

        sizes = [size for size in threads.map(copy, objects()) if size is not None]
    surplus = sorted(set(there) - keys) if delete else []
    for key in surplus:
        target.delete(key)
    return Copied(len(sizes), sum(sizes), len(keys) - len(sizes), len(surplus))


def _copy_object(source: ObjectStore, target: ObjectStore, key: str, known: bool, folder: Path) -> int | None:
    """Copy an object and return its size; None when the target has the same bytes."""
    file, back = folder / "object", folder / "back"
    source.get_file(key, file)
    digest = file_sha256(file)
    if known:
        target.get_file(key, back)
        if file_sha256(back) == digest:
            return None
    target.put_file(key, file)
    read_file(target, key, digest, back)
    return file.stat().st_size


def open_place(place: str, keys: tuple[str, str], region: str, *, must_exist: bool) -> ObjectStore:
    """Return the store that FROM or TO names. Raises InvalidInput, Unavailable."""
    address = urlsplit(place)
    if address.scheme in ("http", "https"):
        bucket = address.path.strip("/")
        if not address.netloc or not bucket or "/" in bucket or "@" in address.netloc:
            raise InvalidInput(f"{place!r} is no bucket: http[s]://HOST:PORT/BUCKET, and the keys in the environment")
        if not all(keys):
            raise InvalidInput(f"{place} needs AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY in the environment")
        store = S3Store(S3Address(address.netloc, bucket, *keys, address.scheme == "https", region))
        store.ensure_bucket(create=False)
        return store
    folder = Path(place)
    if address.scheme or (must_exist and not folder.is_dir()):
        raise InvalidInput(f"{place!r} is neither a folder nor a bucket, http[s]://HOST:PORT/BUCKET")
    return LocalStore(folder)


def main(arguments: Sequence[str], environment: Mapping[str, str]) -> int:
    """Copy, and return the exit code: 0 if TO has what FROM has."""
    parser = argparse.ArgumentParser(
        prog="python -m quatrain.storage.copy",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("source", metavar="FROM")
    parser.add_argument("target", metavar="TO")
    parser.add_argument("--check", action="store_true", help="compare also what TO has already, byte by byte")
    parser.add_argument("--delete", action="store_true", help="remove from TO what FROM does not have")
    parser.add_argument("--region", default="us-east-1", help="region that requests are signed for")
    given = parser.parse_args(arguments)
    keys = environment.get("AWS_ACCESS_KEY_ID", ""), environment.get("AWS_SECRET_ACCESS_KEY", "")
    others = environment.get("TO_ACCESS_KEY_ID", ""), environment.get("TO_SECRET_ACCESS_KEY", "")
    try:
        source = open_place(given.source, keys, given.region, must_exist=True)
        target = open_place(given.target, others if any(others) else keys, given.region, must_exist=False)
        done = copy_store(source, target, check=given.check, delete=given.delete)
    except QuatrainError as error:
        print(error.message, file=sys.stderr)
        return 1
    removed = f", {done.removed} removed" if given.delete else ""
    print(f"{done.written} objects ({done.size} bytes) written, {done.present} were there{removed}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
