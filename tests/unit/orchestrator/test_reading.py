"""Listing jobs: many logs are read side by side, and none spoils the list."""

import asyncio
import threading
import time

import pytest
from tests.unit.orchestrator.scenery import make_plan

from quatrain.errors import Unavailable
from quatrain.joblog import Event, JobLog, JobView, create_job
from quatrain.joblog.payloads import payload_from
from quatrain.orchestrator.api.reading import CONCURRENT_READS, JobReader
from quatrain.rpc.server.access import LOCAL, set_caller
from quatrain.storage.memory import MemoryStore


class WatchedStore(MemoryStore):
    """Counts who reads a spec at the same time; `away`: its specs cannot be read."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> bytes:
        if not key.endswith("spec.json"):
            return super().get(key)
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        try:
            time.sleep(0.01)
            if self.away:
                raise Unavailable("the store is away")
            return super().get(key)
        finally:
            with self._lock:
                self._now -= 1


def store_with(*names: str) -> WatchedStore:
    store = WatchedStore()
    for minute, job in enumerate(names):
        document = make_plan(job).document.to_json()
        create_job(store, job, document | {"create_time": f"2026-01-01T00:{minute:02d}:00+00:00"})
        JobLog(store, job).append(Event(payload_from("owner_taken", {"owner": "o", "address": ""}), "o", epoch=1))
    return store


def listed(reader: JobReader) -> list[str]:
    async def listing() -> list[str]:
        set_caller(LOCAL)
        return [record.job for record in await reader.list_all()]

    return asyncio.run(listing())


def test_the_newest_job_comes_first_and_several_are_read_at_a_time() -> None:
    names = [f"job-{number * 7 % 20}" for number in range(20)]
    store = store_with(*names)

    assert listed(JobReader(store)) == names[::-1]
    assert 1 < store.most <= CONCURRENT_READS


def test_a_damaged_job_is_left_out_and_hides_no_other() -> None:
    store = store_with("a", "b", "c", "d")
    store.put("jobs/b/spec.json", b"{")
    store.put("jobs/c/events/0000000002", b"no event")

    assert listed(JobReader(store)) == ["d", "a"]


def test_a_store_that_is_away_is_said_and_the_next_listing_works() -> None:
    store = store_with("a", "b")
    reader = JobReader(store)
    store.away = True
    with pytest.raises(Unavailable):
        listed(reader)
    store.away = False

    assert listed(reader) == ["b", "a"]


def test_what_is_kept_to_show_a_job_does_not_grow_with_its_steps() -> None:
    store = store_with("a")
    log = JobLog(store, "a")
    log.refresh()
    log.append(Event(payload_from("learner_opened", {"stage": "ppo"}), "o", epoch=1, attempt=1))
    for step in range(1, 41):
        place = {"stage": "ppo", "step": step}
        ref = {"key": f"k{step}", "sha256": "0", "size": 1}
        log.append(Event(payload_from("batch_sealed", {**place, **ref}), "o", epoch=1, attempt=1))
        data = {**place, "metrics": {"loss": float(step)}, "tokens": ref, "policy": None}
        log.append(Event(payload_from("step_completed", data), "o", epoch=1, attempt=1))

    async def views() -> tuple[JobView, JobView]:
        set_caller(LOCAL)
        reader = JobReader(store)
        return (await reader.read("a")).log.view, (await reader.read_steps("a")).log.view

    shown, whole = asyncio.run(views())

    assert (shown.state, shown.step, shown.latest_metrics) == (whole.state, 40, whole.latest_metrics)
    assert [len(shown.metrics["ppo"]), len(shown.sealed), len(shown.tokens)] == [1, 0, 0]
    assert [len(whole.metrics["ppo"]), len(whole.sealed), len(whole.tokens)] == [40, 40, 40]
