"""Bits that flip on the way from the store, several times in a row: nothing is damaged, and no job ends by it."""

from pathlib import Path

import pytest
from tests.integration.orchestrator.faults import FlakyStore
from tests.integration.orchestrator.world import deployment, run

from quatrain.joblog import Event
from quatrain.joblog.payloads import payload_from
from quatrain.orchestrator.job import run as job_run
from quatrain.storage import corrupt_reads


class BadLine(FlakyStore):
    """The first `flips` readings of each object whose key holds `part` come with another bit."""

    def __init__(self, part: str, flips: int) -> None:
        super().__init__()
        self.part = part
        self.flips = flips
        self.readings: dict[str, int] = {}

    def get(self, key: str) -> bytes:
        data = super().get(key)
        if self.part not in key:
            return data
        self.readings[key] = self.readings.get(key, 0) + 1
        return data if self.readings[key] > self.flips else bytes([data[0] ^ 1]) + data[1:]


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    short = tuple(0.0 for _ in corrupt_reads.RETRY_PAUSES)
    monkeypatch.setattr(corrupt_reads, "RETRY_PAUSES", short)
    monkeypatch.setattr(job_run, "RETRY_PAUSES", short)


@pytest.mark.parametrize("part", ["/batches/", "data/", "models/"])
def test_four_bad_readings_of_every_object_are_no_damage(tmp_path: Path, part: str) -> None:
    async def scenario() -> None:
        store = BadLine(part, 4)
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec())
            view = await world.end_of()
            assert (view.state, view.error, view.attempt) == ("SUCCEEDED", None, 1)
            assert store.readings, "nothing was read again"

    run(scenario)


def test_an_owner_reads_an_event_again_until_it_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        store = BadLine("/events/", 0)
        async with deployment(tmp_path, store=store) as world:
            await world.submit(world.spec(steps=50))
            await world.until(lambda: world.view().step >= 1, "a step")
            store.flips = 8
            world.log().append_decided(
                lambda view: Event(payload_from("cancel_requested", {"now": False, "reason": "enough"}), "somebody")
            )
            view = await world.end_of()
            assert (view.state, view.error) == ("CANCELLED", None)
            assert max(store.readings.values()) > 8

    run(scenario)
