"""Reads events one by one."""

from quatrain.errors import Corrupt, NotFound
from quatrain.joblog.events import Event, event_key, parse_event
from quatrain.storage import ObjectStore
from quatrain.storage.corrupt_reads import QUICK_RETRY_PAUSES, retry_corrupt_reads


def event_at(store: ObjectStore, key: str) -> Event:
    """The event at `key`. Raises NotFound, Corrupt, Unavailable."""
    return retry_corrupt_reads(lambda: parse_event(store.get(key), key), QUICK_RETRY_PAUSES)


def read_event(store: ObjectStore, job: str, revision: int) -> Event:
    """An event that must be in the log. Raises Corrupt when it is missing or damaged, Unavailable."""
    key = event_key(job, revision)
    try:
        return event_at(store, key)
    except NotFound as error:
        raise Corrupt(f"{key} is missing while later events exist; restore it from a copy of the bucket") from error
