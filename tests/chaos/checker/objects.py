"""Reading an object store without the code under test: a folder, or a bucket of any S3 server. Nothing is written."""

import hashlib
from pathlib import Path
from typing import Protocol

from minio import Minio
from minio.error import S3Error

PARTIAL = ".partial"
"""Folder of unfinished writes in a local store: no objects."""


class Missing(Exception):
    """There is no such object."""


class Objects(Protocol):
    """What the checker asks of a store."""

    def get(self, key: str) -> bytes:
        """Bytes of an object. Raises Missing."""
        ...

    def list(self, prefix: str) -> list[str]:
        """Keys that begin with `prefix`, in order."""
        ...


class FolderObjects:
    """The local store: an object is a file whose path below the folder is its key."""

    def __init__(self, root: Path | str) -> None:
        self._root = Path(root)

    def get(self, key: str) -> bytes:
        """See `Objects.get`."""
        try:
            return (self._root / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise Missing(key) from None

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        folder = self._root / prefix.rpartition("/")[0]
        keys = (path.relative_to(self._root).as_posix() for path in folder.rglob("*") if path.is_file())
        return sorted(key for key in keys if key.startswith(prefix) and not key.startswith(PARTIAL))


class S3Objects:
    """A bucket; `endpoint` is host:port."""

    def __init__(self, endpoint: str, bucket: str, access_key: str, secret_key: str, *, secure: bool = False) -> None:
        self._client = Minio(endpoint, access_key=access_key, secret_key=secret_key, secure=secure)
        self._bucket = bucket

    def get(self, key: str) -> bytes:
        """See `Objects.get`."""
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

    def list(self, prefix: str) -> list[str]:
        """See `Objects.list`."""
        return sorted(str(item.object_name) for item in self._client.list_objects(self._bucket, prefix, recursive=True))


def sha256(data: bytes) -> str:
    """Lower-case hex sha256."""
    return hashlib.sha256(data).hexdigest()
