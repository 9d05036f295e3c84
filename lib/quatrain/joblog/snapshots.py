"""Snapshots `jobs/{job}/snapshots/{revision:010d}`: a hundred events in one object, with their digest.

They make reading a long log quick: a hundredth of the requests. A snapshot holds the events themselves, not the
folded view, because folding is cheap and requests are not, and because a folded view grows with the job: writing it
every hundred revisions would cost the square of the job's length. Snapshots are derived and have no authority: a
missing or damaged one only means that its hundred events are read one by one.
"""

from collections.abc import Sequence

from quatrain.digests import canonical_json, parse_json, sha256_hex
from quatrain.errors import NotFound
from quatrain.joblog.events import Event, event_from
from quatrain.storage import ObjectStore

# Revisions between snapshots.
SNAPSHOT_EVERY = 100


def snapshot_key(job: str, revision: int) -> str:
    """Return the key of the snapshot whose last event is `revision`."""
    return f"jobs/{job}/snapshots/{revision:010d}"


def list_snapshots(store: ObjectStore, job: str) -> set[int]:
    """Return the revisions that snapshots end at."""
    names = (stat.key.rsplit("/", 1)[-1] for stat in store.list(f"jobs/{job}/snapshots/"))
    return {int(name) for name in names if name.isdigit()}


def write_snapshot(store: ObjectStore, job: str, events: Sequence[Event]) -> None:
    """Store `events`, which are SNAPSHOT_EVERY in a row. A snapshot that is there already stays."""
    documents = [event.document() for event in events]
    digest = sha256_hex(canonical_json(documents))
    store.put_if_absent(snapshot_key(job, events[-1].revision), canonical_json({"sha256": digest, "events": documents}))


def read_snapshot(store: ObjectStore, job: str, revision: int) -> list[Event] | None:
    """Return the SNAPSHOT_EVERY events up to `revision`; None when the snapshot is missing or damaged."""
    try:
        document = parse_json(store.get(snapshot_key(job, revision)))
        documents = document["events"]
        if document["sha256"] != sha256_hex(canonical_json(documents)):
            return None
        events = [event_from(each) for each in documents]
    except (NotFound, ValueError, KeyError, TypeError):
        return None
    expected = list(range(revision - SNAPSHOT_EVERY + 1, revision + 1))
    return events if [event.revision for event in events] == expected else None
