import json
import threading
import time

import pytest

from quatrain.errors import Corrupt, Fenced, Unavailable, WrongState
from quatrain.joblog import Event, JobLog, LogConflict
from quatrain.joblog.events import event_key
from quatrain.joblog.payloads import CancelRequested, PauseRequested, payload_from
from quatrain.joblog.snapshots import SNAPSHOT_EVERY, snapshot_key
from quatrain.storage.memory import MemoryStore


class ForgetfulStore(MemoryStore):
    """Loses the answer of writes: `landed` says whether the bytes arrived all the same."""

    def __init__(self, *, landed: bool) -> None:
        super().__init__()
        self.landed = landed
        self.failing = 0

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if self.failing == 0:
            return super().put_if_absent(key, data)
        self.failing -= 1
        if self.landed:
            super().put_if_absent(key, data)
        raise Unavailable("the store's answer was lost")


class CountingStore(MemoryStore):
    def __init__(self) -> None:
        super().__init__()
        self.gets = 0

    def get(self, key: str) -> bytes:
        self.gets += 1
        return super().get(key)


def taken(owner: str = "a", epoch: int = 1) -> Event:
    return Event(payload_from("owner_taken", {"owner": owner, "address": "127.0.0.1:1"}), owner, epoch)


def step(number: int, epoch: int = 1, attempt: int = 0) -> Event:
    data = {
        "stage": "ppo",
        "step": number,
        "metrics": {"reward/score_mean": number / 7},
        "tokens": None,
        "policy": None,
    }
    return Event(payload_from("step_completed", data), "a", epoch, attempt)


def write_steps(store: MemoryStore, count: int) -> JobLog:
    log = JobLog(store, "j")
    log.append(taken())
    for number in range(1, count):
        log.append(step(number))
    return log


def test_events_get_rising_revisions_and_others_read_them() -> None:
    store = MemoryStore()
    writer, reader = JobLog(store, "j"), JobLog(store, "j")

    first = writer.append(taken())
    second = writer.append(step(1))

    assert (first.revision, second.revision) == (1, 2)
    assert reader.refresh() == [first, second]
    assert reader.refresh() == []
    assert reader.view == writer.view
    assert list(json.loads(store.get("jobs/j/events/0000000002"))) == sorted(second.document())


def test_a_conflict_folds_what_is_there_and_names_it() -> None:
    store = MemoryStore()
    owner, replica = JobLog(store, "j"), JobLog(store, "j")
    owner.append(taken())
    replica.append_decided(lambda view: Event(CancelRequested(reason="enough"), "replica"))

    with pytest.raises(LogConflict, match="cancel_requested") as caught:
        owner.append(step(1))

    assert [event.type for event in caught.value.events] == ["cancel_requested"]
    assert owner.view.intents.cancel == CancelRequested(reason="enough")
    assert owner.append(step(1)).revision == 3


def test_an_intent_goes_after_whatever_was_written_meanwhile() -> None:
    store = MemoryStore()
    replica = JobLog(store, "j")
    write_steps(store, 5)

    event = replica.append_decided(lambda view: Event(PauseRequested(reason="lunch"), "replica"))

    assert event is not None
    assert event.revision == 6
    assert replica.view.intents.pause == PauseRequested(reason="lunch")


def test_two_owners_race_and_one_wins() -> None:
    store = MemoryStore()
    barrier = threading.Barrier(2)
    outcomes: list[str] = []

    def take(owner: str) -> None:
        log = JobLog(store, "j")
        barrier.wait(5)
        try:
            log.append(taken(owner))
            outcomes.append("won")
        except LogConflict:
            outcomes.append("lost")

    threads = [threading.Thread(target=take, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)

    assert sorted(outcomes) == ["lost", "won"]


def test_an_owner_whose_epoch_is_over_can_change_nothing() -> None:
    store = MemoryStore()
    stale, heir = JobLog(store, "j"), JobLog(store, "j")
    stale.append(taken())
    heir.refresh()
    heir.append(taken("b", epoch=2))

    with pytest.raises(LogConflict):
        stale.append(step(1))
    with pytest.raises(Fenced, match="'b' owns it"):
        stale.append(step(1))
    with pytest.raises(Fenced):
        stale.append(taken("a", epoch=2))

    assert heir.refresh() == []


def test_an_attempt_that_is_over_can_change_nothing() -> None:
    log = JobLog(MemoryStore(), "j")
    log.append(taken())
    opened = {"learner_id": "l", "address": "h:1", "stage": "ppo", "from_step": 0}
    log.append(Event(payload_from("learner_opened", opened), "a", 1, 1))
    log.append(Event(payload_from("learner_opened", opened), "a", 1, 2))

    with pytest.raises(Fenced, match="attempt 1 is over"):
        log.append(step(1, attempt=1))

    assert log.append(step(1, attempt=2)).revision == 4


@pytest.mark.parametrize(
    "event", [step(1, epoch=2), step(1, attempt=1), Event(payload_from("no_such_event", {}), "a", 1)]
)
def test_what_never_was_is_refused_before_it_is_written(event: Event) -> None:
    log = JobLog(MemoryStore(), "j")
    log.append(taken())

    with pytest.raises(ValueError, match=r"never|refused"):
        log.append(event)

    assert log.view.revision == 1


def test_an_event_without_its_fields_never_gets_into_the_log() -> None:
    store = MemoryStore()

    with pytest.raises(ValueError, match="StepCompleted"):
        JobLog(store, "j").append(Event(payload_from("step_completed", {"stage": "ppo"}), "a"))

    assert store.list("jobs/") == []


def test_nothing_follows_the_terminal_event() -> None:
    log = JobLog(MemoryStore(), "j")
    log.append(taken())
    log.append(Event(payload_from("job_finished", {"state": "SUCCEEDED", "error": None}), "a", 1))

    with pytest.raises(WrongState, match="SUCCEEDED"):
        log.append_decided(lambda view: Event(payload_from("cancel_requested", {"now": True, "reason": ""}), "b"))


@pytest.mark.parametrize("landed", [True, False])
@pytest.mark.parametrize("reads_between", [True, False])
def test_an_ambiguous_write_is_recognised_by_its_nonce(landed: bool, reads_between: bool) -> None:
    store = ForgetfulStore(landed=landed)
    log = JobLog(store, "j")
    log.append(taken())
    event = step(1)
    store.failing = 1
    with pytest.raises(Unavailable):
        log.append(event)
    if reads_between:
        log.refresh()

    placed = log.append(event)

    assert placed == event.at(2)
    assert log.view.revision == 2
    assert len(store.list("jobs/j/events/")) == 2


def test_another_event_at_an_ambiguous_place_is_a_conflict() -> None:
    store = ForgetfulStore(landed=False)
    log = JobLog(store, "j")
    log.append(taken())
    event = step(1)
    store.failing = 1
    with pytest.raises(Unavailable):
        log.append(event)
    JobLog(store, "j").append_decided(lambda view: Event(CancelRequested(), "b"))

    with pytest.raises(LogConflict):
        log.append(event)


def test_a_long_log_is_read_through_snapshots() -> None:
    store = CountingStore()
    written = write_steps(store, 10 * SNAPSHOT_EVERY + 7)
    store.gets = 0

    reader = JobLog(store, "j")
    events = reader.refresh()

    assert len(events) == 10 * SNAPSHOT_EVERY + 7
    assert reader.view == written.view
    assert store.gets == 10 + 7


@pytest.mark.parametrize("damage", ["bit", "json", "missing", "shifted"])
def test_a_damaged_snapshot_falls_back_to_its_events(damage: str) -> None:
    store = MemoryStore()
    written = write_steps(store, 3 * SNAPSHOT_EVERY)
    key = snapshot_key("j", 2 * SNAPSHOT_EVERY)
    if damage == "missing":
        store.delete(key)
    elif damage == "shifted":
        store.put(key, store.get(snapshot_key("j", SNAPSHOT_EVERY)))
    else:
        store.put(key, store.get(key).replace(b'"step":150', b'"step":151') if damage == "bit" else b"{")

    reader = JobLog(store, "j")
    reader.refresh()

    assert reader.view == written.view


def test_a_missing_snapshot_is_written_by_the_next_reader() -> None:
    store = MemoryStore()
    write_steps(store, SNAPSHOT_EVERY + 1)
    store.delete(snapshot_key("j", SNAPSHOT_EVERY))

    JobLog(store, "j").refresh()

    assert store.stat(snapshot_key("j", SNAPSHOT_EVERY)) is not None


def test_a_missing_event_is_corrupt() -> None:
    store = MemoryStore()
    write_steps(store, 10)
    store.delete(event_key("j", 4))

    with pytest.raises(Corrupt, match="event 5 follows event 3"):
        JobLog(store, "j").refresh()


@pytest.mark.parametrize("data", [b"{", b"[]", b'{"revision":1}', None])
def test_a_damaged_event_is_corrupt(data: bytes | None) -> None:
    store = MemoryStore()
    write_steps(store, 3)
    store.put(event_key("j", 2), store.get(event_key("j", 1)) if data is None else data)

    with pytest.raises(Corrupt, match="0000000002"):
        JobLog(store, "j").refresh()


def test_a_bit_that_flips_on_the_way_is_no_damage() -> None:
    class FlippingStore(MemoryStore):
        flips = 0

        def get(self, key: str) -> bytes:
            self.flips += 1
            data = super().get(key)
            return data if self.flips % 2 == 0 else bytes([data[0] ^ 1]) + data[1:]

    store = FlippingStore()
    write_steps(store, 3)

    assert [event.revision for event in JobLog(store, "j").refresh()] == [1, 2, 3]


def test_ten_thousand_events_are_folded_in_under_ten_seconds() -> None:
    store = CountingStore()
    names = {f"group/metric_{i}": i / 7 for i in range(60)}
    log = JobLog(store, "j")
    log.append(taken())
    for number in range(1, 10_000):
        data = {"stage": "ppo", "step": number, "metrics": names, "tokens": None, "policy": None}
        log.append(Event(payload_from("step_completed", data), "a", 1))
    store.gets = 0

    start = time.monotonic()
    reader = JobLog(store, "j")
    reader.refresh()
    seconds = time.monotonic() - start

    assert reader.view.completed == {"ppo": 9_999}
    assert store.gets == 100
    assert seconds < 10
