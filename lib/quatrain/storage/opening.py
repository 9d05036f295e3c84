"""From configuration to a store."""

from quatrain.config import StorageConfig
from quatrain.errors import InvalidInput
from quatrain.storage.local import LocalStore
from quatrain.storage.memory import MemoryStore
from quatrain.storage.protocol import ObjectStore
from quatrain.storage.s3 import S3Address, S3Store


def open_store(config: StorageConfig, *, create_bucket: bool = False) -> ObjectStore:
    """Open the configured store. Raises InvalidInput (settings, missing bucket), Unavailable."""
    if config.kind == "memory":
        return MemoryStore()
    if config.kind == "local":
        if not config.root:
            raise InvalidInput("storage.kind is local, but storage.root names no folder")
        return LocalStore(config.root)
    if not config.endpoint or not config.bucket:
        raise InvalidInput("storage.kind is s3, but storage.endpoint or storage.bucket is empty")
    address = S3Address(
        config.endpoint, config.bucket, config.access_key, config.secret_key, config.secure, config.region
    )
    store = S3Store(address)
    store.ensure_bucket(create=create_bucket)
    return store
