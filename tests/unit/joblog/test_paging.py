import pytest
from tests.unit.joblog.test_log import CountingStore

from quatrain.errors import Corrupt
from quatrain.joblog import Event, JobLog, read_events
from quatrain.joblog.events import event_key
from quatrain.joblog.payloads import payload_from
from quatrain.joblog.snapshots import snapshot_key


def long_log(count: int) -> CountingStore:
    store = CountingStore()
    log = JobLog(store, "j")
    for number in range(count):
        log.append(Event(payload_from("pause_requested", {"reason": str(number)}), "a"))
    store.gets = 0
    return store


@pytest.mark.parametrize(
    ("first", "last", "gets"),
    [
        (1, 250, 53),
        (1, 1, 1),
        (100, 100, 1),
        (95, 104, 11),
        (101, 200, 1),
        (120, 180, 1),
        (241, 250, 10),
        (251, 250, 0),
    ],
)
def test_a_page_is_read_without_the_rest(first: int, last: int, gets: int) -> None:
    store = long_log(250)

    events = read_events(store, "j", first, last)

    assert [event.revision for event in events] == list(range(first, last + 1))
    assert [event.data["reason"] for event in events] == [str(number - 1) for number in range(first, last + 1)]
    assert store.gets <= gets


def test_a_damaged_snapshot_is_read_event_by_event_and_a_missing_event_is_told() -> None:
    store = long_log(120)
    store.put(snapshot_key("j", 100), b"{}")

    assert len(read_events(store, "j", 1, 120)) == 120

    store.delete(event_key("j", 50))
    with pytest.raises(Corrupt, match="0000000050 is missing"):
        read_events(store, "j", 1, 120)
