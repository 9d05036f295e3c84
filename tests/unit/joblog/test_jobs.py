import pytest

from quatrain.errors import Corrupt, NotFound
from quatrain.joblog import Event, JobLog, create_job, list_active, list_jobs, read_spec, retire
from quatrain.joblog.payloads import payload_from
from quatrain.storage import ObjectStat
from quatrain.storage.memory import MemoryStore


def test_a_created_job_is_listed_and_active() -> None:
    store = MemoryStore()

    assert create_job(store, "a", {"name": "x"})
    assert list_jobs(store) == list(list_active(store)) == ["a"]
    assert read_spec(store, "a") == {"name": "x"}


def test_an_id_is_given_once() -> None:
    store = MemoryStore()
    create_job(store, "a", {"name": "x"})

    assert not create_job(store, "a", {"name": "y"})
    assert read_spec(store, "a") == {"name": "x"}


def test_a_finished_job_stays_listed_but_is_not_active_again() -> None:
    store = MemoryStore()
    create_job(store, "a", {})
    retire(store, "a")
    retire(store, "a")

    create_job(store, "a", {})

    assert list_active(store) == {}
    assert list_jobs(store) == ["a"]


def test_ids_that_begin_alike_are_all_listed() -> None:
    store = MemoryStore()
    ids = ["a", "a-b", "a0", "a00", "ab", "b"]
    for job in ids:
        create_job(store, job, {})
        JobLog(store, job).append(Event(payload_from("state_changed", {"state": "QUEUED"}), "x"))

    assert sorted(list_jobs(store)) == sorted(ids)


def test_short_logs_are_listed_many_at_a_time_and_long_ones_are_skipped() -> None:
    class CountingStore(MemoryStore):
        requests = 0

        def list(self, prefix: str, *, start_after: str = "", limit: int | None = None) -> list[ObjectStat]:
            self.requests += 1
            return super().list(prefix, start_after=start_after, limit=limit)

        def stat(self, key: str) -> ObjectStat | None:
            self.requests += 1
            return super().stat(key)

    store = CountingStore()
    ids = [f"short-{number:03d}" for number in range(100)]
    for job in [*ids, "long", "long-too"]:
        store.put(f"jobs/{job}/spec.json", b"{}")
    for job, events in (("long", 5000), ("long-too", 1500), ("short-050", 3000), ("ghost", 1)):
        for revision in range(events):
            store.put(f"jobs/{job}/events/{revision:010d}", b"{}")

    assert list_jobs(store) == ["long-too", "long", *ids]
    assert store.requests < 15


def test_objects_without_a_spec_are_no_job() -> None:
    store = MemoryStore()
    store.put("jobs/ghost/events/0000000001", b"{}")

    assert list_jobs(store) == []
    with pytest.raises(NotFound, match="ghost"):
        read_spec(store, "ghost")


@pytest.mark.parametrize("data", [b"{", b"[]"])
def test_a_damaged_spec_is_corrupt(data: bytes) -> None:
    store = MemoryStore()
    store.put("jobs/a/spec.json", data)

    with pytest.raises(Corrupt, match=r"spec\.json"):
        read_spec(store, "a")
