"""Reads a job's log and appends to it. Conditional creation of the next event is the only lock there is.

Who may append what. An event is created at the revision after the last one that its writer has folded, and only if
nothing is there yet: of two writers one gets LogConflict. Besides, with E and A the epoch and attempt of the view:

    writer                                 epoch    attempt    allowed while the job is
    a new owner (OwnerTaken)               E + 1    0 or A     not finished
    the owner                              E        0 or A     not finished
    the owner, a new try (LearnerOpened)   E        A + 1      not finished
    any process, an intent                 0        0          not finished
    any process, HOUSEKEEPING              0        0          not deleted

A lower epoch or attempt is Fenced: its writer was replaced. A higher one is a mistake in the program: ValueError.

What holds in a JobLog whenever `_lock` is free:

    _view      is the fold of the events 1 to `_view.revision`, without a gap. Only `_advance` changes it, one event on.
    _listed    is false until one refresh has listed the log to its end, which shows gaps. From then on refresh asks for
               the next key only, which stays as cheap however long the log grows.
    _tail      has the folded events after the last multiple of SNAPSHOT_EVERY: what the next snapshot will hold.
    _unsure    has the nonces of appends that ended without an answer and that have not been folded. Such an event is
               tried again without the checks above, because it may be in the log already.
    _landed    has the events of such nonces that were folded later: appending one again returns it.

No nonce is in both of the last two.
"""

import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import TypeVar

from quatrain.errors import Fenced, NotFound, Unavailable, WrongState
from quatrain.faults import fault_point
from quatrain.joblog.events import Event, event_key
from quatrain.joblog.folding import apply
from quatrain.joblog.jobs import mark_active
from quatrain.joblog.payloads import HOUSEKEEPING, LearnerOpened, OwnerTaken, Unknown
from quatrain.joblog.reading import event_at, read_event
from quatrain.joblog.snapshots import SNAPSHOT_EVERY, list_snapshots, read_snapshot, write_snapshot
from quatrain.joblog.view import JobView
from quatrain.storage import ObjectStore

T = TypeVar("T")

# Conflicts in a row after which an intent gives up. Each one means that another event got in between.
INTENT_TRIES = 50


class LogConflict(WrongState):
    """A lost race: another writer appended the next event first. `events` are the new ones, already folded."""

    reason = "LOG_CONFLICT"

    def __init__(self, message: str, events: Sequence[Event]) -> None:
        super().__init__(message)
        self.events = tuple(events)


class JobLog:
    """The log of one job and its fold. Methods block on the store; call them in a worker thread. Thread-safe.

    Without `keep_steps` the view is what `JobView.forget_steps` leaves: as small after ten thousand steps as after one.
    """

    def __init__(self, store: ObjectStore, job: str, *, keep_steps: bool = True) -> None:
        self._store = store
        self._job = job
        self._keep_steps = keep_steps
        self._view = JobView(job)
        self._lock = threading.RLock()
        self._listed = False
        self._tail: list[Event] = []
        self._unsure: set[str] = set()
        self._landed: dict[str, Event] = {}

    @property
    def view(self) -> JobView:
        """The job as far as its log has been read; refresh and append move it on."""
        return self._view

    def look(self, make: Callable[[JobView], T]) -> T:
        """Return what `make` makes of the view, which no other thread changes meanwhile."""
        with self._lock:
            return make(self._view)

    def refresh(self) -> list[Event]:
        """Read and fold the new events and return them, oldest first.

        Raises Unavailable when the store is, Corrupt when an event is missing, damaged or unknown.
        """
        with self._lock:
            if self._listed:
                return self._read_following()
            events = self._read_snapshots() if self._view.revision == 0 else []
            events += self._read_listed()
            self._listed = True
            return events

    def append(self, event: Event) -> Event:
        """Write `event` as the revision after the last folded one and return it with that revision.

        Appending the same event again after Unavailable is safe: its nonce tells whether the first write arrived.

        Raises Fenced when a newer epoch or attempt exists; LogConflict when another writer's event is there (it is
        folded by then); WrongState when the job has finished; Unavailable.
        """
        with self._lock:
            if event.nonce in self._landed:
                return self._landed[event.nonce]
            self._check_may_append(event)
            placed = event.at(self._view.revision + 1)
            fault_point("joblog.before_event")
            try:
                created = self._store.put_if_absent(event_key(self._job, placed.revision), placed.to_bytes())
            except Unavailable:
                self._unsure.add(event.nonce)
                raise
            if not created:
                return self._find(placed)
            fault_point("joblog.after_event")
            self._advance_and_snapshot(placed)
            return placed

    def append_decided(self, decide: Callable[[JobView], Event | None]) -> Event | None:
        """Append the event that `decide` makes of the newest view and return it; None when `decide` returns None.

        `decide` is called again whenever another writer's event came first, so nothing is ever decided on an old view.
        The index entry of an unfinished job is written again, because those who look for jobs without an owner list
        only the index. Raises what `decide` raises and what `append` raises, except LogConflict.
        """
        with self._lock:
            for _ in range(INTENT_TRIES):
                self.refresh()
                event = decide(self._view)
                if event is None:
                    return None
                try:
                    placed = self.append(event)
                except LogConflict:
                    continue
                if not self._view.finished:
                    with contextlib.suppress(
                        Unavailable
                    ):  # An owner that misses this sees the event at its next refresh.
                        mark_active(self._store, self._job, placed.revision)
                return placed
        raise Unavailable(f"job {self._job}: {INTENT_TRIES} decisions came too late; try again")

    def _check_may_append(self, event: Event) -> None:
        view = self._view
        if event.nonce in self._unsure:
            return  # It may be in the log already; the write will tell.
        if isinstance(event.payload, Unknown):
            raise ValueError(f"refused to append {event.type!r}: what is in a log is there forever")
        if view.deleted is not None:
            raise WrongState(f"job {self._job} was deleted: no {event.type} can follow")
        if view.finished and (event.epoch or not isinstance(event.payload, HOUSEKEEPING)):
            raise WrongState(f"job {self._job} is {view.state}: no {event.type} can follow")
        if event.epoch == 0:
            return
        taking = isinstance(event.payload, OwnerTaken)
        opening = isinstance(event.payload, LearnerOpened)
        if event.epoch < view.epoch + taking:
            raise Fenced(
                f"job {self._job}: epoch {event.epoch} is over, {view.owner!r} owns it with epoch {view.epoch}"
            )
        if event.epoch > view.epoch + taking:
            raise ValueError(f"job {self._job}: epoch {event.epoch} was never taken; the log is at {view.epoch}")
        if event.attempt and event.attempt < view.attempt + opening:
            raise Fenced(f"job {self._job}: attempt {event.attempt} is over, the newest is {view.attempt}")
        if event.attempt > view.attempt + opening:
            raise ValueError(f"job {self._job}: attempt {event.attempt} was never opened; the log is at {view.attempt}")

    def _find(self, placed: Event) -> Event:
        """Return `placed` if an ambiguous write has put it there. Raises LogConflict when another event is there."""
        events = self.refresh()
        mine = next((event for event in events if event.nonce == placed.nonce), None)
        if mine is not None:
            return mine
        if not events:
            raise Unavailable(
                f"{self._store.name} says that {event_key(self._job, placed.revision)} exists but does not give it"
            )
        names = ", ".join(f"{event.revision} {event.type}" for event in events)
        raise LogConflict(f"job {self._job}: {placed.type} lost against {names}", events)

    def _read_snapshots(self) -> list[Event]:
        present = list_snapshots(self._store, self._job)
        folded: list[Event] = []
        for end in range(SNAPSHOT_EVERY, max(present, default=0) + 1, SNAPSHOT_EVERY):
            events = read_snapshot(self._store, self._job, end) if end in present else None
            if events is not None:
                for event in events:
                    self._advance(event)
            else:
                events = [
                    read_event(self._store, self._job, revision)
                    for revision in range(end - SNAPSHOT_EVERY + 1, end + 1)
                ]
                for event in events:
                    self._advance_and_snapshot(event)
            folded += events
        return folded

    def _read_following(self) -> list[Event]:
        folded: list[Event] = []
        while True:
            key = event_key(self._job, self._view.revision + 1)
            try:
                event = event_at(self._store, key)
            except NotFound:
                return folded
            self._advance_and_snapshot(event)
            folded.append(event)

    def _read_listed(self) -> list[Event]:
        folded: list[Event] = []
        after = event_key(self._job, self._view.revision)
        for stat in self._store.list(f"jobs/{self._job}/events/", start_after=after):
            event = event_at(self._store, stat.key)
            self._advance_and_snapshot(event)
            folded.append(event)
        return folded

    def _advance(self, event: Event) -> None:
        apply(self._view, event)
        if not self._keep_steps:
            self._view.forget_steps()
        if event.nonce in self._unsure:
            self._unsure.discard(event.nonce)
            self._landed[event.nonce] = event

    def _advance_and_snapshot(self, event: Event) -> None:
        self._advance(event)
        self._tail.append(event)
        if event.revision % SNAPSHOT_EVERY == 0:
            tail, self._tail = self._tail, []
            # A snapshot is derived: without it the log only reads slower, so an unavailable store is no reason to fail.
            try:
                write_snapshot(self._store, self._job, tail)
            except Unavailable:
                return
