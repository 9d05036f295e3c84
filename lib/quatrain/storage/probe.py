"""The start-up check that refuses a store on which the job log would not be safe."""

import secrets
from contextlib import suppress

from quatrain.errors import InvalidInput, NotFound
from quatrain.storage.protocol import ObjectStore


def probe_store(store: ObjectStore) -> None:
    """Test atomic creation and read-after-write for GET and LIST with objects under `probe/`, which are then removed.

    Raises InvalidInput (reason STORE_UNFIT) naming the store and the promise it broke, Unavailable when it cannot be
    reached.
    """
    prefix = f"probe/{secrets.token_hex(8)}"
    first, second = f"{prefix}/1", f"{prefix}/2"
    try:
        _prove_creation(store, first)
        _prove_reading(store, prefix, first, second)
    finally:
        store.delete(first)
        store.delete(second)
    if store.stat(first) is not None:
        raise _unfit(store, "an object that was deleted is still there")


def _prove_creation(store: ObjectStore, key: str) -> None:
    if not store.put_if_absent(key, b"first"):
        raise _unfit(store, "it says that an object exists under a key that was never used")
    for rival in (b"second", b"first"):
        if store.put_if_absent(key, rival):
            raise _unfit(
                store,
                "it ignores `If-None-Match: *`, so two owners of a job could both write the same event; "
                "use a store with conditional writes (MinIO, AWS S3, SeaweedFS, ...)",
            )
    if _read(store, key) != b"first":
        raise _unfit(store, "a refused conditional write changed the object")


def _prove_reading(store: ObjectStore, prefix: str, first: str, second: str) -> None:
    store.put(second, b"1")
    store.put(second, b"22")
    if _read(store, second) != b"22" or store.get_range(second, 1, 5) != b"2":
        raise _unfit(store, "GET does not return what was just written")
    listed = [(stat.key, stat.size) for stat in store.list(f"{prefix}/")]
    if listed != [(first, 5), (second, 2)]:
        raise _unfit(store, f"LIST does not show what was just written, in order: {listed}")
    if [stat.key for stat in store.list(f"{prefix}/", start_after=first)] != [second]:
        raise _unfit(store, "LIST ignores `start-after`")


def _read(store: ObjectStore, key: str) -> bytes | None:
    with suppress(NotFound):
        return store.get(key)
    return None


def _unfit(store: ObjectStore, why: str) -> InvalidInput:
    return InvalidInput(f"{store.name} cannot hold Quatrain's data: {why}", reason="STORE_UNFIT")
