from typing import Any

import pytest

from quatrain.digests import canonical_json
from quatrain.errors import Corrupt
from quatrain.joblog import Event, JobView, apply, fold
from quatrain.joblog.compact import MetricRow
from quatrain.joblog.events import parse_event
from quatrain.joblog.payloads import (
    BatchSealed,
    CancelRequested,
    JobError,
    OffsetMeasured,
    PauseRequested,
    StageCompleted,
    StageReport,
    StateChanged,
    payload_from,
)
from quatrain.joblog.view import Checkpoint, Intents
from quatrain.refs import ModelRef, ObjectRef


def log_of(*entries: tuple[str, dict[str, Any]], attempt: int = 1) -> list[Event]:
    return [
        Event(
            payload_from(type, data), "owner", 1, attempt, nonce=str(i), time=f"2026-01-01T00:00:{i:02d}Z", revision=i
        )
        for i, (type, data) in enumerate(entries, start=1)
    ]


def model(version: int) -> dict[str, Any]:
    return ref(version).to_json()


def ref(version: int) -> ModelRef:
    return ModelRef(f"store:jobs/j/ppo/policy/{version}-1", f"d{version}", version)


def completed(step: int, **metrics: float | None) -> tuple[str, dict[str, Any]]:
    data = {"stage": "ppo", "step": step, "metrics": metrics, "policy": model(step)}
    return "step_completed", {**data, "tokens": {"key": f"t{step}", "sha256": "s", "size": 1}}


STARTED = ("stage_started", {"stage": "ppo", "total_steps": 2, "total_rows": 64})


def test_a_ppo_stage_folds_into_the_job_as_it_is() -> None:
    sealed = {"stage": "ppo", "step": 1, "key": "b", "sha256": "s", "size": 9, "policy_version": 0}
    checkpoint = {"stage": "ppo", "step": 1, "key": "c", "sha256": "s", "size": 2}

    view = fold(
        "j",
        log_of(
            ("owner_taken", {"owner": "o", "address": "h:1"}),
            ("state_changed", {"state": "RUNNING", "reason": "learner is open"}),
            STARTED,
            ("learner_opened", {"learner_id": "l", "address": "h:2", "stage": "ppo", "from_step": 0}),
            ("policy_published", {"stage": "ppo", "step": 0, "model": model(0)}),
            ("batch_sealed", sealed),
            completed(1, kl=0.5, entropy=None),
            ("checkpoint", checkpoint),
        ),
    )

    assert (view.state, view.stage, view.step, view.total_steps) == ("RUNNING", "ppo", 1, 2)
    assert (view.epoch, view.attempt, view.owner) == (1, 1, "o")
    assert view.policies == {0: ref(0), 1: ref(1)}
    assert view.policy_version == 1
    assert dict(view.sealed) == {1: BatchSealed(step=1, key="b", sha256="s", size=9, policy_version=0)}
    assert view.tokens[1] == ObjectRef("t1", "s", 1)
    assert view.latest_metrics == MetricRow(1, 1, {"kl": 0.5, "entropy": None})
    assert view.newest_checkpoint("ppo") == Checkpoint("ppo", 1, ObjectRef("c", "s", 2), attempt=1, revision=8)
    assert view.newest_checkpoint("sft") is None
    assert (view.create_time, view.update_time) == ("2026-01-01T00:00:01Z", "2026-01-01T00:00:08Z")


def test_evaluations_are_merged_into_the_row_of_their_step_in_order() -> None:
    def evaluated(step: int) -> tuple[str, dict[str, Any]]:
        return "evaluated", {"step": step, "key": "e", "sha256": "s", "size": 1, "metrics": {"eval/score": step * 1.0}}

    view = fold("j", log_of(STARTED, evaluated(0), completed(1, kl=1.0), evaluated(2), completed(2, kl=2.0)))

    assert list(view.metrics["ppo"]) == [
        MetricRow(0, 1, {"eval/score": 0.0}),
        MetricRow(1, 1, {"kl": 1.0}),
        MetricRow(2, 1, {"eval/score": 2.0, "kl": 2.0}),
    ]
    assert sorted(view.evaluations) == [0, 2]


def test_a_stage_that_starts_again_goes_on_where_it_was() -> None:
    view = fold("j", log_of(STARTED, completed(1), STARTED))

    assert view.step == 1


def test_intents_last_until_they_are_taken_back() -> None:
    view = fold(
        "j", log_of(("pause_requested", {"reason": "lunch"}), ("cancel_requested", {"now": True, "reason": "a"}))
    )
    assert view.intents == Intents(CancelRequested(now=True, reason="a"), PauseRequested(reason="lunch"))

    apply(view, Event(payload_from("resume_requested", {}), "x", revision=3))
    apply(view, Event(payload_from("cancel_requested", {"now": False, "reason": "b"}), "x", revision=4))

    assert view.intents == Intents(CancelRequested(now=True, reason="b"))


def test_conditions_come_and_go() -> None:
    view = fold("j", log_of(("condition", {"name": "store", "message": "away"})))
    assert view.conditions == {"store": "away"}

    apply(view, Event(payload_from("condition", {"name": "store", "message": None}), "x", revision=2))

    assert view.conditions == {}


def test_the_retry_budget_starts_again_at_a_checkpoint() -> None:
    failed, again = (
        ("attempt_failed", {"reason": "LEARNER_LOST", "message": message, "stage": "ppo", "step": 1})
        for message in ("gone", "gone again")
    )
    checkpoint = ("checkpoint", {"stage": "ppo", "step": 1, "key": "c", "sha256": "s", "size": 2})

    assert len(fold("j", log_of(failed, failed)).failures) == 2
    assert [each.message for each in fold("j", log_of(failed, checkpoint, again)).failures] == ["gone again"]


def test_the_first_digest_of_a_version_is_the_one() -> None:
    other = {**model(0), "digest": "other"}

    view = fold(
        "j", log_of(*(("policy_published", {"stage": "ppo", "step": 0, "model": m}) for m in (model(0), other)))
    )

    assert view.policies[0] == ref(0)


def test_the_terminal_event_says_how_it_ended() -> None:
    error = {"reason": "RUN_FAILED", "message": "the loss was not finite"}

    view = fold(
        "j", log_of(("cancel_requested", {"now": False}), ("job_finished", {"state": "FAILED", "error": error}))
    )

    assert view.finished
    assert (view.state, view.error, view.intents) == ("FAILED", JobError.model_validate(error), Intents())


def test_results_of_stages_are_kept() -> None:
    report = {"metrics": {"loss": 1.0}}
    data = {"stage": "sft", "model": {"uri": "u", "digest": "d"}, "weights_sha256": "w", "report": report}

    view = fold("j", log_of(("stage_completed", data), ("offset_measured", {"offset": 0.25, "samples": 64})))

    assert view.stage_results == {
        "sft": StageCompleted(
            stage="sft", model=ModelRef("u", "d"), weights_sha256="w", report=StageReport(metrics={"loss": 1.0})
        )
    }
    assert view.offset == OffsetMeasured(offset=0.25, samples=64)


@pytest.mark.parametrize(
    ("event", "message"),
    [
        (Event(payload_from("state_changed", {"state": "RUNNING"}), "x", revision=2), "missing"),
        (Event(payload_from("moon_landed", {}), "x", revision=1), "does not know"),
    ],
)
def test_an_event_that_cannot_be_folded_is_corrupt(event: Event, message: str) -> None:
    with pytest.raises(Corrupt, match=message):
        apply(JobView("j"), event)


def test_takeovers_are_counted_until_the_job_moves_on() -> None:
    owner = ("owner_taken", {"owner": "o", "address": ""})
    sealed = ("batch_sealed", {"stage": "ppo", "step": 1, "key": "b", "sha256": "s", "policy_version": 0})

    assert fold("j", log_of(owner, owner, owner)).owners_without_progress == 3
    assert fold("j", log_of(owner, owner, sealed)).owners_without_progress == 0
    assert fold("j", log_of(owner, owner, STARTED, completed(1), owner)).owners_without_progress == 1


def test_an_owner_gives_a_paused_job_up_and_a_resumed_one_waits_for_the_next() -> None:
    taken = ("owner_taken", {"owner": "o", "address": ""})
    pausing, lifting = ("pause_requested", {"reason": "lunch"}), ("resume_requested", {"reason": "back"})
    rest = ("state_changed", {"state": "PAUSED", "reason": "lunch", "elapsed": 7.5})

    asked = fold("j", log_of(taken, ("state_changed", {"state": "RUNNING", "reason": ""}), pausing))
    paused = fold("j", log_of(taken, pausing, rest))
    cancelled = fold("j", log_of(taken, pausing, rest, ("cancel_requested", {"now": False, "reason": ""})))
    resumed = fold("j", log_of(taken, pausing, rest, lifting))
    crossed = fold("j", log_of(taken, pausing, lifting, rest))

    assert (asked.state, asked.owner, asked.paused) == ("RUNNING", "o", False)
    assert (paused.state, paused.owner, paused.paused, paused.reason) == ("PAUSED", "", True, "lunch")
    assert (paused.elapsed, paused.owners_without_progress) == (7.5, 0)
    assert (cancelled.state, cancelled.paused) == ("PAUSED", False)
    assert (resumed.state, resumed.owner, resumed.paused, resumed.reason) == ("QUEUED", "", False, "back")
    assert (crossed.state, crossed.owner, crossed.paused) == ("QUEUED", "", False)


def test_a_job_without_an_owner_is_paused_by_the_intent_alone() -> None:
    view = fold("j", log_of(("pause_requested", {"reason": "lunch"})))

    assert (view.state, view.reason, view.paused) == ("PAUSED", "lunch", True)


def test_an_event_that_lacks_what_its_type_holds_is_corrupt() -> None:
    stored = Event(payload_from("state_changed", {"state": "RUNNING"}), "x", revision=1).document()

    with pytest.raises(Corrupt, match="is not an event"):
        parse_event(canonical_json(stored | {"data": {}}), "jobs/j/events/0000000001")


def test_what_this_version_does_not_know_of_an_event_is_kept() -> None:
    written = Event(payload_from("state_changed", {"state": "RUNNING"}), "x", revision=1)
    stored = written.document() | {"data": {**written.data, "mood": "good"}}

    event = parse_event(canonical_json(stored), "jobs/j/events/0000000001")

    assert event.payload == StateChanged(state="RUNNING")
    assert event.document() == stored
