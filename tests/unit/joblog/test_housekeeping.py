import pytest

from quatrain.errors import Fenced, Unavailable, WrongState
from quatrain.joblog import Event, JobLog, JobView, fold, jobs
from quatrain.joblog.payloads import payload_from
from quatrain.storage.memory import MemoryStore


def taken(epoch: int = 1) -> Event:
    return Event(payload_from("owner_taken", {"owner": "a", "address": ""}), "a", epoch)


def saved(step: int, stage: str = "ppo") -> Event:
    key = f"jobs/j/{stage}/checkpoints/{step}-1/manifest.json"
    return Event(
        payload_from("checkpoint", {"stage": stage, "step": step, "key": key, "sha256": "0", "size": 1}), "a", 1
    )


def released(step: int, epoch: int = 0) -> Event:
    key = f"jobs/j/ppo/checkpoints/{step}-1/manifest.json"
    return Event(
        payload_from("checkpoint_released", {"stage": "ppo", "step": step, "key": key, "reason": "retention"}),
        "b",
        epoch,
    )


def pinned(step: int, *, pinned: bool = True) -> Event:
    key = f"jobs/j/ppo/checkpoints/{step}-1/manifest.json"
    return Event(payload_from("checkpoint_pinned", {"stage": "ppo", "step": step, "key": key, "pinned": pinned}), "b")


def policy(version: int) -> Event:
    model = {"uri": f"store:jobs/j/ppo/policy/{version}-1", "digest": "0", "policy_version": version}
    return Event(payload_from("policy_published", {"stage": "ppo", "step": version, "model": model}), "a", 1)


def finished() -> Event:
    return Event(payload_from("job_finished", {"state": "SUCCEEDED", "error": None}), "a", 1)


def written(*events: Event) -> JobLog:
    log = JobLog(MemoryStore(), "j")
    for event in (taken(), *events):
        log.append(event)
    return log


def test_a_released_checkpoint_is_no_longer_one_to_start_from() -> None:
    view = written(saved(2), saved(4), pinned(2), released(2)).view

    assert [ref.step for ref in view.checkpoints] == [4]
    assert view.pinned == set()
    (ref,) = view.released.values()
    assert (ref.step, ref.reason, ref.actor, ref.revision) == (2, "retention", "b", 5)


def test_a_pin_can_be_lifted() -> None:
    assert len(written(saved(2), pinned(2)).view.pinned) == 1
    assert written(saved(2), pinned(2), pinned(2, pinned=False)).view.pinned == set()


def test_released_policies_are_gone_and_the_newest_version_stays_known() -> None:
    view = written(
        policy(1), policy(2), policy(3), Event(payload_from("policies_released", {"versions": [1, 3]}), "a", 1)
    ).view

    assert list(view.policies) == [2]
    assert set(view.released_policies) == {1, 3}
    assert view.policy_version == 3


def test_housekeeping_may_follow_the_end_and_does_not_change_it() -> None:
    log = written(saved(2), saved(4), finished())
    ended = log.view.update_time

    for event in (pinned(4), released(2), Event(payload_from("policies_released", {"versions": []}), "b")):
        log.append(event)

    assert (log.view.state, log.view.error, log.view.finished) == ("SUCCEEDED", None, True)
    assert ended
    assert log.view == fold("j", JobLog(log._store, "j").refresh())


def test_nothing_else_follows_the_end() -> None:
    log = written(saved(2), finished())

    for event in (
        released(2, epoch=1),
        saved(4),
        taken(2),
        Event(payload_from("pause_requested", {"reason": ""}), "b"),
    ):
        with pytest.raises(WrongState, match="is SUCCEEDED"):
            log.append(event)


def test_nothing_follows_the_tombstone() -> None:
    log = written(saved(2), finished(), Event(payload_from("job_deleted", {"reason": "old"}), "ann"))

    assert log.view.deleted is not None
    assert (log.view.deleted.actor, log.view.deleted.reason) == ("ann", "old")
    for event in (released(2), Event(payload_from("job_deleted", {"reason": ""}), "b")):
        with pytest.raises(WrongState, match="was deleted"):
            log.append(event)


def test_an_owner_that_was_replaced_releases_nothing() -> None:
    log = written(saved(2), saved(4), taken(2))

    with pytest.raises(Fenced):
        log.append(released(2, epoch=1))


def test_a_decision_is_made_anew_when_another_event_comes_between() -> None:
    log = written(saved(2), saved(4))
    other = JobLog(log._store, "j")
    other.refresh()
    seen: list[set[str]] = []

    def decide(view: JobView) -> Event | None:
        seen.append(set(view.pinned))
        if not view.pinned:
            other.append(pinned(2))
            return released(2)
        return None

    assert log.append_decided(decide) is None
    assert [len(keys) for keys in seen] == [0, 1]
    assert [ref.step for ref in log.view.checkpoints] == [2, 4]


def test_a_log_that_never_stands_still_ends_the_decision() -> None:
    log = written(saved(2))
    other = JobLog(log._store, "j")

    def decide(view: JobView) -> Event | None:
        other.append_decided(lambda view: Event(payload_from("resume_requested", {}), "c"))
        return released(2)

    with pytest.raises(Unavailable, match="too late"):
        log.append_decided(decide)


def test_a_finished_job_goes_from_one_index_to_the_other() -> None:
    store = MemoryStore()
    jobs.create_job(store, "j", {})
    jobs.retire(store, "j")
    store.put(jobs.cleanup_key("j", 7), b"{}")
    store.put(jobs.cleanup_key("k", 12), b"{}")
    for other in ("cleanup/j/x", "cleanup/j/1/2", "cleanup/readme"):
        store.put(other, b"")

    assert not jobs.list_active(store)
    assert jobs.list_cleanups(store) == {"j": [0, 7], "k": [12]}
