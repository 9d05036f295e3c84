"""Pages of a log: any run of events, read without what is before and after it."""

from quatrain.joblog.events import Event
from quatrain.joblog.reading import read_event
from quatrain.joblog.snapshots import SNAPSHOT_EVERY, read_snapshot
from quatrain.storage import ObjectStore


def read_events(store: ObjectStore, job: str, first: int, last: int) -> list[Event]:
    """The events `first` to `last`, which must be in the log: a request a snapshot, one an event where none is.

    Raises Corrupt when an event is missing or damaged, Unavailable.
    """
    found: list[Event] = []
    revision = max(first, 1)
    while revision <= last:
        end = -(-revision // SNAPSHOT_EVERY) * SNAPSHOT_EVERY
        # A run of a few is not worth a hundred, and the newest ones have no snapshot yet.
        block = read_snapshot(store, job, end) if end <= last or last - revision > SNAPSHOT_EVERY // 10 else None
        end = min(end, last)
        if block is None:
            found += [read_event(store, job, each) for each in range(revision, end + 1)]
        else:
            found += [event for event in block if revision <= event.revision <= end]
        revision = end + 1
    return found
