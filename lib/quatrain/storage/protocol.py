"""The interface of an object store, as far as Quatrain needs one."""

import builtins
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

PAGE = 1000
"""Keys of one request to list: the most that S3 returns, and what its client asks for."""


@dataclass(frozen=True)
class ObjectStat:
    """One object: its key, its size in bytes and when it was written (the store's clock, epoch seconds)."""

    key: str
    size: int
    modified: float


class ObjectStore(Protocol):
    """A flat map from keys to bytes, strongly consistent for GET and LIST, with atomic creation.

        store = open_store(config.storage)
        mine = store.put_if_absent("jobs/j-1/spec.json", document)
        keys = [stat.key for stat in store.list("jobs/")]

    Calls block and are safe from several threads. Retries with a bounded total wait happen inside. Every method
    raises InvalidInput for a key that is not plain (`keys.check_key`) and Unavailable when the store cannot be
    reached, refuses access or is full. Keys are never both an object and a folder: `a` and `a/b` cannot both exist.
    """

    @property
    def name(self) -> str:
        """Return what this store is, for messages: `local folder /x`, `s3 http://host:9000/bucket`."""
        ...

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create an object. True: this call created it. False: the key was taken, by anything.

        When a reply was lost the object is read back: bytes equal to `data` count as created by this call, so data
        that two writers may both offer must carry a nonce if it matters who won.
        """
        ...

    def put(self, key: str, data: bytes) -> None:
        """Write an object, replacing what is there."""
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Write an object from a file of any size, streaming. Raises NotFound when the file is not there."""
        ...

    def get(self, key: str) -> bytes:
        """Read a whole object. Raises NotFound."""
        ...

    def get_range(self, key: str, start: int, length: int) -> bytes:
        """Read up to `length` bytes from `start`: fewer at the end, none past it. Raises NotFound."""
        ...

    def get_file(self, key: str, path: Path) -> None:
        """Read an object into a file, streaming; the file appears whole or not at all. Raises NotFound."""
        ...

    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> builtins.list[ObjectStat]:
        """List the objects whose key starts with `prefix` and is above `start_after`, by the keys' UTF-8 bytes."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def stat(self, key: str) -> ObjectStat | None:
        """Return size and time of an object, None when there is none."""
        ...


def pages(store: ObjectStore, prefix: str) -> Iterator[list[ObjectStat]]:
    """Yield the objects under a prefix, page by page. They may be deleted meanwhile. Raises Unavailable."""
    after = ""
    while page := store.list(prefix, start_after=after, limit=PAGE):
        yield page
        after = page[-1].key
