import pytest
from tests.unit.orchestrator.scenery import make_plan

from quatrain.joblog import Event, JobLog
from quatrain.joblog.payloads import CancelRequested, OwnerTaken
from quatrain.orchestrator.ownership.admission import MAX_LOST_OWNERS, SUSPECT_AFTER, UnownedJob
from quatrain.storage.memory import MemoryStore


def after(lost: int, *, cancelled: bool = False) -> UnownedJob:
    """A job that has lost so many owners in a row."""
    log = JobLog(MemoryStore(), "job-1")
    log.refresh()
    for epoch in range(1, lost + 1):
        log.append(Event(OwnerTaken(owner=f"owner-{epoch}"), f"owner-{epoch}", epoch=epoch))
    if cancelled:
        log.append_decided(lambda view: Event(CancelRequested(now=True), "somebody"))
    return UnownedJob(make_plan(), (0.0, 0), log)


def test_the_next_owner_of_a_suspect_comes_later_each_time() -> None:
    assert [after(lost).leases for lost in range(1, MAX_LOST_OWNERS)] == [1, 1, 2, 4, 8]


def test_what_only_has_to_be_ended_is_not_waited_for() -> None:
    assert after(MAX_LOST_OWNERS).leases == 1
    assert after(MAX_LOST_OWNERS - 1, cancelled=True).leases == 1


@pytest.mark.parametrize("lost", [1, 2, 3])
def test_a_job_is_a_suspect_once_it_has_lost_two_owners_in_a_row(lost: int) -> None:
    assert after(lost).suspect == (lost >= SUSPECT_AFTER)
