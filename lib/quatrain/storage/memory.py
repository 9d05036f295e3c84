"""Objects in memory, for tests and for trying out one process. They are lost with it."""

import builtins
import threading
import time
from bisect import bisect_right, insort
from pathlib import Path

from typing_extensions import override

from quatrain.errors import InvalidInput, NotFound
from quatrain.storage.files import read_file, write_file
from quatrain.storage.keys import check_key, check_prefix, check_range
from quatrain.storage.protocol import ObjectStat, ObjectStore


class MemoryStore(ObjectStore):
    """An `ObjectStore` in a dict. Two stores share nothing; one store may be used from several threads."""

    def __init__(self) -> None:
        self._objects: dict[str, tuple[bytes, float]] = {}
        self._order: list[tuple[bytes, str]] = []
        self._lock = threading.Lock()

    @property
    @override
    def name(self) -> str:
        return "memory store"

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        with self._lock:
            if key in self._objects:
                return False
            self._write(key, data)
            return True

    @override
    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        with self._lock:
            self._write(key, data)

    @override
    def put_file(self, key: str, path: Path) -> None:
        self.put(key, read_file(path))

    @override
    def get(self, key: str) -> bytes:
        check_key(key)
        with self._lock:
            if key not in self._objects:
                raise NotFound(f"{self.name} has no object {key}")
            return self._objects[key][0]

    @override
    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_range(start, length)
        return self.get(key)[start : start + length]

    @override
    def get_file(self, key: str, path: Path) -> None:
        write_file(path, [self.get(key)])

    @override
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> builtins.list[ObjectStat]:
        check_prefix(prefix)
        first = prefix.encode()
        found: builtins.list[ObjectStat] = []
        with self._lock:
            # (bytes, "") sorts before (bytes, key): the prefix itself is included, start_after itself is not.
            start = max((first, ""), (start_after.encode(), start_after))
            for index in range(bisect_right(self._order, start), len(self._order)):
                encoded, key = self._order[index]
                if not encoded.startswith(first) or (limit is not None and len(found) >= limit):
                    break
                data, modified = self._objects[key]
                found.append(ObjectStat(key, len(data), modified))
        return found

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        with self._lock:
            if self._objects.pop(key, None) is not None:
                self._order.remove((key.encode(), key))

    @override
    def stat(self, key: str) -> ObjectStat | None:
        check_key(key)
        with self._lock:
            if key not in self._objects:
                return None
            data, modified = self._objects[key]
            return ObjectStat(key, len(data), modified)

    def _write(self, key: str, data: bytes) -> None:
        if key not in self._objects:
            self._refuse_folder_clash(key)
            insort(self._order, (key.encode(), key))
        self._objects[key] = (bytes(data), time.time())

    def _refuse_folder_clash(self, key: str) -> None:
        parts = key.split("/")
        if any("/".join(parts[:depth]) in self._objects for depth in range(1, len(parts))):
            raise InvalidInput(f"object key {key} lies under a key that is an object itself")
        below = (f"{key}/".encode(), "")
        index = bisect_right(self._order, below)
        if index < len(self._order) and self._order[index][0].startswith(below[0]):
            raise InvalidInput(f"object key {key} is a folder of other keys")
