"""Reading an object store without the code under test: a folder, or a bucket of any S3 server. Nothing is written."""

import hashlib
from pathlib import Path
from typing import Protocol

from minio import Minio
from minio.error import S3Error
from typing_extensions import override

PARTIAL = ".partial"
"""Folder of unfinished writes in a local store: no objects."""


class Missing(Exception):
    """There is no such object."""


class Objects(Protocol):
    """What the checker asks of a store."""

    def get(self, key: str) -> bytes:
        """Return the bytes of an object. Raise Missing."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Return the keys that begin with `prefix`, in order."""
        ...


class FolderObjects(Objects):
    """The local store: an object is a file whose path below the folder is its key."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    @override
    def get(self, key: str) -> bytes:
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(key) from None

    @override
    def list(self, prefix: str) -> list[str]:
        folder = self._root / prefix.rpartition("/")[0]
        keys = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(key for key in keys if key.startswith(prefix) and not key.startswith(PARTIAL))


class S3Objects(Objects):
    """A bucket; `endpoint` is host:port."""

    def __init__(self, endpoint: str, bucket: str, access_key: str, secret_key: str, *, secure: bool = False) -> None:
        self._client = Minio(endpoint, access_key=access_key, secret_key=secret_key, secure=secure)
        self._bucket = bucket

    @override
    def get(self, key: str) -> bytes:
        try:
            response = self._client.get_object(self._bucket, key)
        except S3Error as error:
            if error.code in ("NoSuchKey", "NoSuchBucket"):
                raise Missing(key) from None
            raise
        try:
            data: bytes = response.read()
            return data
        finally:
            response.close()
            response.release_conn()

    @override
    def list(self, prefix: str) -> list[str]:
        return sorted(str(item.object_name) for item in self._client.list_objects(self._bucket, prefix, recursive=True))


def sha256(data: bytes) -> str:
    """Return the sha256 in lower-case hex."""
    return hashlib.sha256(data).hexdigest()
