"""From configuration to a store."""

from pathlib import Path
from typing import Protocol

from quatrain.errors import InvalidInput
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore
from quatrain.storage.protocol import ObjectStore
from quatrain.storage.s3 import S3Address, S3Store


class StorageSettings(Protocol):
    """What `open_store` reads; `quatrain.config.StorageConfig` has it."""

    @property
    def kind(self) -> str:
        """`local`, `s3` or `memory`."""
        ...

    @property
    def root(self) -> Path | None:
        """Folder of a local store."""
        ...

    @property
    def endpoint(self) -> str:
        """`host:port` of the S3 server."""
        ...

    @property
    def bucket(self) -> str:
        """Bucket of the S3 server."""
        ...

    @property
    def access_key(self) -> str:
        """Access key of the S3 server."""
        ...

    @property
    def secret_key(self) -> str:
        """Secret key of the S3 server."""
        ...

    @property
    def secure(self) -> bool:
        """TLS to the S3 server."""
        ...

    @property
    def region(self) -> str:
        """Region that requests are signed for."""
        ...


def open_store(config: StorageSettings, *, create_bucket: bool = False) -> ObjectStore:
    """Open the configured store. Raises InvalidInput (settings, missing bucket), Unavailable."""
    if config.kind == "memory":
        return MemoryStore()
    if config.kind == "local":
        if not config.root:
            raise InvalidInput("storage.kind is local, but storage.root names no folder")
        return LocalStore(Path(config.root))
    if config.kind == "s3":
        if not config.endpoint or not config.bucket:
            raise InvalidInput("storage.kind is s3, but storage.endpoint or storage.bucket is empty")
        address = S3Address(
            config.endpoint, config.bucket, config.access_key, config.secret_key, config.secure, config.region
        )
        store = S3Store(address)
        store.ensure_bucket(create=create_bucket)
        return store
    raise InvalidInput(f"storage.kind is {config.kind!r}; local, s3 and memory are known")
