"""Listings that may be long, a page at a time."""

from collections.abc import Iterator

from quatrain.storage.protocol import ObjectStat, ObjectStore

PAGE = 1000
"""Keys that a request lists: what S3 gives at most, and what its client asks for anyway."""


def pages(store: ObjectStore, prefix: str) -> Iterator[list[ObjectStat]]:
    """What lies under a prefix, in one pass: objects may be deleted meanwhile. Raises Unavailable."""
    after = ""
    while page := store.list(prefix, start_after=after, limit=PAGE):
        yield page
        after = page[-1].key
