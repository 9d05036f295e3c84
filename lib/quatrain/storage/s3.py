"""Objects in MinIO, or any S3 server that keeps `If-None-Match: *`.

The minio client signs and speaks S3. It cannot send a conditional PUT itself (a header given as metadata becomes
`x-amz-meta-...` and is ignored), so `put_if_absent` sends the header beside a presigned PUT.
"""

import base64
import builtins
import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from minio import Minio
from minio.error import S3Error, ServerError
from typing_extensions import override
from urllib3 import BaseHTTPResponse, PoolManager
from urllib3.exceptions import IncompleteRead

from quatrain.errors import Corrupt, InvalidInput, NotFound
from quatrain.storage.files import CHUNK, disk_error, write_file
from quatrain.storage.keys import check_key, check_prefix, check_range
from quatrain.storage.protocol import ObjectStat, ObjectStore
from quatrain.storage.s3_errors import S3_FAILURES, RetryBudget, is_missing, is_transient
from quatrain.storage.s3_transport import open_pool, part_retries

PART_SIZE = 64 << 20
_PARALLEL_PARTS = 3
_READ_TIMEOUT = 20.0
_PART_TIMEOUT = 120.0
_PRESIGNED_PUT = timedelta(minutes=15)

T = TypeVar("T")


@dataclass(frozen=True)
class S3Address:
    """The address and keys of a bucket. `endpoint` is host:port; `total_wait` bounds retries, in seconds."""

    endpoint: str
    bucket: str
    access_key: str = field(repr=False)
    secret_key: str = field(repr=False)
    secure: bool = True
    region: str = "us-east-1"
    total_wait: float = 20.0


class S3Store(ObjectStore):
    """An `ObjectStore` in one bucket. It connects when first used. Raises InvalidInput for an invalid address."""

    def __init__(self, address: S3Address) -> None:
        self._address = address
        self._bucket = address.bucket
        scheme = "https" if address.secure else "http"
        self._name = f"s3 {scheme}://{address.endpoint}/{address.bucket}"
        # Retries are ours: one inside the connection pool would hide that a write may have happened.
        self._pool = open_pool(secure=address.secure, read_timeout=_READ_TIMEOUT, retries=False)
        parts = part_retries(address.total_wait)
        try:
            self._client = _client(address, self._pool)
            self._bulk = _client(address, open_pool(secure=address.secure, read_timeout=_PART_TIMEOUT, retries=parts))
        except ValueError as error:
            raise InvalidInput(f"storage.endpoint {address.endpoint!r} is no host:port: {error}") from error

    @property
    @override
    def name(self) -> str:
        return self._name

    def ensure_bucket(self, *, create: bool) -> None:
        """Check that the bucket is there, making it if allowed. Raises InvalidInput if it is not, Unavailable."""
        try:
            if self._retry("look for the bucket", lambda: self._client.bucket_exists(self._bucket)):
                return
        except ValueError as error:
            raise InvalidInput(f"storage.bucket {self._bucket!r} is no bucket name: {error}") from error
        if not create:
            raise InvalidInput(f"{self.name}: there is no such bucket; create it, or correct storage.bucket")
        self._retry("make the bucket", self._make_bucket)

    @override
    def put_if_absent(self, key: str, data: bytes) -> bool:
        check_key(key)
        budget = self._retry_budget(f"create {key}")
        doubt = False  # a write may have happened although its reply was lost
        while True:
            try:
                return self._create(key, data) or (doubt and self.get(key) == data)
            except S3_FAILURES as error:
                if is_transient(error):
                    doubt = True
                    if (there := self._read_back(key)) is not None:
                        return there == data
                budget.after(error)

    @override
    def put(self, key: str, data: bytes) -> None:
        check_key(key)
        if len(data) > PART_SIZE:
            self._retry(f"write {key}", lambda: self._upload(key, io.BytesIO(data), len(data)))
        else:
            self._retry(f"write {key}", lambda: self._client.put_object(self._bucket, key, io.BytesIO(data), len(data)))

    @override
    def put_file(self, key: str, path: Path) -> None:
        """Write an object in parts of 64 MiB, three at a time, each with its own retries.

        There is no time-out for the whole: it goes on as long as the server takes each block in time.
        """
        check_key(key)
        try:
            with path.open("rb") as file:
                size = path.stat().st_size
                self._retry(f"write {key}", lambda: self._upload(key, file, size))
        except FileNotFoundError as error:
            raise NotFound(f"there is no file {path}") from error
        except OSError as error:
            raise disk_error(error, f"file {path}") from error

    @override
    def get(self, key: str) -> bytes:
        return b"".join(self.stream(key))

    @override
    def get_range(self, key: str, start: int, length: int) -> bytes:
        check_key(key)
        check_range(start, length)
        if length == 0:
            if self.stat(key) is None:
                raise self._not_found(key)
            return b""
        return self._retry(f"read {key}", lambda: self._read_range(key, start, length))

    @override
    def get_file(self, key: str, path: Path) -> None:
        """Read an object into a file. A transfer that breaks is resumed where it broke."""
        write_file(path, self.stream(key))

    @override
    def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> builtins.list[ObjectStat]:
        check_prefix(prefix)
        found: builtins.list[ObjectStat] = []
        budget = self._retry_budget(f"list {prefix}")
        while True:
            after = found[-1].key if found else start_after
            try:
                pages = self._client.list_objects(self._bucket, prefix, recursive=True, start_after=after or None)
                wanted = None if limit is None else max(0, limit - len(found))
                for entry in islice(pages, wanted):
                    found.append(ObjectStat(entry.object_name, entry.size, entry.last_modified.timestamp()))
                return found
            except S3_FAILURES as error:
                budget.after(error)

    @override
    def delete(self, key: str) -> None:
        check_key(key)
        try:
            self._retry(f"delete {key}", lambda: self._client.remove_object(self._bucket, key))
        except NotFound:
            return

    @override
    def stat(self, key: str) -> ObjectStat | None:
        check_key(key)
        try:
            entry = self._retry(f"stat {key}", lambda: self._client.stat_object(self._bucket, key))
        except NotFound:
            return None
        return ObjectStat(key, int(entry.size), entry.last_modified.timestamp())

    def _retry_budget(self, operation: str) -> RetryBudget:
        return RetryBudget(self.name, operation, self._address.total_wait)

    def _not_found(self, key: str) -> NotFound:
        return NotFound(f"{self.name} has no object {key}")

    def _retry(self, operation: str, request: Callable[[], T]) -> T:
        """Try until it works. Raises NotFound for a missing key, Unavailable for any other lasting failure."""
        budget = self._retry_budget(operation)
        while True:
            try:
                return request()
            except S3_FAILURES as error:
                if is_missing(error):
                    raise NotFound(f"{self.name}: {operation}: there is no such object") from error
                budget.after(error)

    def _create(self, key: str, data: bytes) -> bool:
        """Send one conditional PUT. True: created, False: the key was taken."""
        url = self._client.presigned_put_object(self._bucket, key, expires=_PRESIGNED_PUT)
        checksum = hashlib.md5(data, usedforsecurity=False).digest()
        headers = {
            "If-None-Match": "*",
            "Content-MD5": base64.b64encode(checksum).decode(),  # a presigned URL does not sign the body
            "Content-Type": "application/octet-stream",
        }
        response = self._pool.request("PUT", url, body=data, headers=headers, redirect=False)
        if response.status == 412:
            return False
        if response.status != 200:
            raise _failure(response)
        return True

    def _read_back(self, key: str) -> bytes | None:
        """Return what lies under the key now, None if nothing does or it cannot be read."""
        try:
            response = self._client.get_object(self._bucket, key)
            try:
                return bytes(response.read())
            finally:
                response.close()
                response.release_conn()
        except S3_FAILURES:
            return None

    def _upload(self, key: str, file: Any, size: int) -> None:
        file.seek(0)
        self._bulk.put_object(self._bucket, key, file, size, part_size=PART_SIZE, num_parallel_uploads=_PARALLEL_PARTS)

    def _read_range(self, key: str, start: int, length: int) -> bytes:
        try:
            response = self._client.get_object(self._bucket, key, offset=start, length=length)
        except S3Error as error:
            if error.code == "InvalidRange":  # past the end
                return b""
            raise
        try:
            return bytes(response.read())
        finally:
            response.close()
            response.release_conn()

    def stream(self, key: str) -> Iterator[bytes]:
        """Yield the object's bytes; after a failure the rest of the same version. Raises NotFound, Corrupt."""
        check_key(key)
        budget = self._retry_budget(f"read {key}")
        offset, total, etag = 0, -1, ""
        while offset != total:
            begun = offset
            try:
                only = {"If-Match": etag} if etag else None
                response = self._client.get_object(self._bucket, key, offset=offset, request_headers=only)
                try:
                    if total < 0:
                        total, etag = int(response.headers["Content-Length"]), response.headers.get("ETag", "")
                    for chunk in response.stream(CHUNK):
                        offset += len(chunk)
                        yield chunk
                finally:
                    response.close()
                    response.release_conn()
                if offset != total:
                    raise IncompleteRead(offset, total - offset)
            except S3_FAILURES as error:
                if is_missing(error):
                    raise self._not_found(key) from error
                if isinstance(error, S3Error) and error.code == "PreconditionFailed":
                    raise Corrupt(f"{self.name}: {key} was replaced while it was read") from error
                if offset - begun >= CHUNK:
                    budget.progressed()
                budget.after(error)

    def _make_bucket(self) -> None:
        try:
            self._client.make_bucket(self._bucket, location=self._address.region)
        except S3Error as error:
            if error.code not in ("BucketAlreadyOwnedByYou", "BucketAlreadyExists"):
                raise


def _client(address: S3Address, pool: PoolManager) -> Any:
    """Return a minio client. Any: its results are typed as optional throughout."""
    return Minio(
        address.endpoint,
        access_key=address.access_key,
        secret_key=address.secret_key,
        secure=address.secure,
        region=address.region,
        http_client=pool,
    )


def _failure(response: BaseHTTPResponse) -> Exception:
    """Return the error that an answer means; a proxy's page instead of XML is a server error."""
    if response.data and "xml" in response.headers.get("Content-Type", ""):
        return S3Error.fromxml(response)
    if response.status in (401, 403, 404):
        code = "NoSuchBucket" if response.status == 404 else "AccessDenied"
        return S3Error(response, code, response.reason, None, None, None)
    return ServerError(f"HTTP status {response.status}", response.status)
