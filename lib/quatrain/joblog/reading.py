"""Reads events of a log: one by one, or a run of them without what is before and after it."""

from quatrain.errors import Corrupt, NotFound
from quatrain.joblog.events import Event, event_key, parse_event
from quatrain.joblog.snapshots import SNAPSHOT_EVERY, read_snapshot
from quatrain.storage import ObjectStore
from quatrain.storage.corrupt_reads import QUICK_RETRY_PAUSES, retry_corrupt_reads


def event_at(store: ObjectStore, key: str) -> Event:
    """Return the event at `key`. Raises NotFound, Corrupt, Unavailable."""
    return retry_corrupt_reads(lambda: parse_event(store.get(key), key), QUICK_RETRY_PAUSES)


def read_event(store: ObjectStore, job: str, revision: int) -> Event:
    """Return an event that must be in the log. Raises Corrupt when it is missing or damaged, Unavailable."""
    key = event_key(job, revision)
    try:
        return event_at(store, key)
    except NotFound as error:
        raise Corrupt(f"{key} is missing while later events exist; restore it from a copy of the bucket") from error


def read_events(store: ObjectStore, job: str, first: int, last: int) -> list[Event]:
    """Return the events `first` to `last`, which must be in the log: one request for each snapshot in between, and one
    for each event that is in no snapshot.

    Raises Corrupt when an event is missing or damaged, Unavailable.
    """
    found: list[Event] = []
    revision = max(first, 1)
    while revision <= last:
        end = -(-revision // SNAPSHOT_EVERY) * SNAPSHOT_EVERY
        # A whole snapshot is too much to read for a few events, and the newest events are in none yet.
        block = read_snapshot(store, job, end) if end <= last or last - revision > SNAPSHOT_EVERY // 10 else None
        end = min(end, last)
        if block is None:
            found += [read_event(store, job, each) for each in range(revision, end + 1)]
        else:
            found += [event for event in block if revision <= event.revision <= end]
        revision = end + 1
    return found
