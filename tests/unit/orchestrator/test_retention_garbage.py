"""What is garbage, by name and log: never what an event can still name, or what the job began with."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.orchestrator.scenery import make_plan, with_pinned

from quatrain.joblog import Event, JobView, fold
from quatrain.joblog.payloads import payload_from
from quatrain.orchestrator.retention.garbage import JobGarbage, garbage_of
from quatrain.refs import ModelRef

PLAN = with_pinned(make_plan("j"), reference=ModelRef("store:jobs/j/ppo/policy/5-0", "0"))


def folder(kind: str, number: int, by: int, stage: str = "ppo") -> str:
    return f"jobs/j/{stage}/{kind}/{number}-{by}"


def saved(number: int, by: int, stage: str = "ppo") -> Event:
    key = folder("checkpoints", number, by, stage) + "/manifest.json"
    return Event(payload_from("checkpoint", {"stage": stage, "step": number, "key": key, "sha256": "0"}), "o", 1, by)


def completed(step: int, by: int) -> Event:
    data = {
        "stage": "ppo",
        "step": step,
        "metrics": {},
        "tokens": {"key": f"jobs/j/ppo/tokens/{step}-{by}.parquet", "sha256": "0"},
        "policy": {"uri": f"store:{folder('policy', step, by)}", "digest": "0", "policy_version": step},
    }
    return Event(payload_from("step_completed", data), "o", 1, by)


def view(*more: Event) -> JobView:
    """A job in its third attempt and second epoch, which has saved and completed a few steps."""
    opened = {"learner_id": "", "address": "", "stage": "ppo", "from_step": 0}
    story = [
        Event(payload_from("owner_taken", {"owner": "a"}), "a", 1),
        *(Event(payload_from("learner_opened", opened), "o", 1, attempt) for attempt in (1, 2)),
        saved(2, 1, "sft"),
        *(
            Event(
                payload_from(
                    "batch_sealed", {"step": step, "key": f"jobs/j/ppo/batches/{step}-1-aa.parquet", "sha256": "0"}
                ),
                "o",
                1,
                2,
            )
            for step in (1, 2)
        ),
        completed(1, 2),
        completed(2, 2),
        saved(1, 2),
        saved(2, 2),
        Event(
            payload_from(
                "evaluated", {"step": 2, "key": "jobs/j/ppo/evals/2-1-aa.parquet", "sha256": "0", "metrics": {}}
            ),
            "o",
            1,
            2,
        ),
        Event(payload_from("owner_taken", {"owner": "b"}), "b", 2),
        Event(payload_from("learner_opened", opened), "o", 2, 3),
        *more,
    ]
    return fold("j", [event.at(place) for place, event in enumerate(story, 1)])


def released(number: int, by: int) -> Event:
    key = folder("checkpoints", number, by) + "/manifest.json"
    return Event(payload_from("checkpoint_released", {"stage": "ppo", "step": number, "key": key}), "o", 2)


FINISHED = Event(payload_from("job_finished", {"state": "FAILED", "error": None}), "o", 2)
DELETED = Event(payload_from("job_deleted", {}), "o")
LIVE = [
    folder("checkpoints", 2, 2) + "/manifest.json",
    folder("checkpoints", 2, 2) + "/a/b",
    folder("checkpoints", 2, 1, "sft") + "/x",
    folder("policy", 2, 2) + "/model.safetensors",
    "jobs/j/ppo/batches/1-1-aa.parquet",
    "jobs/j/ppo/tokens/1-2.parquet",
    "jobs/j/ppo/evals/2-1-aa.parquet",
    folder("policy", 5, 0) + "/model.safetensors",
]
# What an owner and a learner of the newest epoch and attempt may be about to name.
PENDING = [
    folder("checkpoints", 4, 3) + "/manifest.json",
    folder("policy", 4, 3) + "/config.json",
    folder("policy", 4, 0) + "/config.json",
    "jobs/j/ppo/batches/3-2-bb.parquet",
    "jobs/j/ppo/tokens/3-3.parquet",
    "jobs/j/ppo/evals/4-2-bb.parquet",
    "jobs/j/ppo/rollouts/rollout-3-0-cc-0",
    folder("policy", 4, 1, "reward") + "/model.safetensors",
]
SUPERSEDED = [
    folder("checkpoints", 2, 1) + "/manifest.json",
    folder("checkpoints", 4, 2, "sft") + "/x",
    folder("policy", 2, 1) + "/config.json",
    folder("policy", 3, 2) + "/config.json",
]
# Two for each step, so nobody asks for them while the job runs.
SUPERSEDED_TABLES = [
    "jobs/j/ppo/batches/1-1-zz.parquet",
    "jobs/j/ppo/tokens/1-1.parquet",
    "jobs/j/ppo/evals/2-1-zz.parquet",
]
UNKNOWN = ["jobs/j/notes.txt", "jobs/j/ppo/policy/x-1/a", "jobs/j/ppo/policy/1-1", "jobs/j/ppo/other/1-1/a"]
LOG = ["jobs/j/spec.json", "jobs/j/events/0000000001", "jobs/j/snapshots/0000000100"]


@pytest.mark.parametrize("key", [*LIVE, *PENDING, *SUPERSEDED_TABLES, *UNKNOWN, *LOG])
def test_a_running_job_loses_nothing_that_is_named_or_may_be(key: str) -> None:
    assert not garbage_of(view(), PLAN).is_garbage(key)


@pytest.mark.parametrize("key", SUPERSEDED)
def test_what_older_attempts_left_unnamed_goes(key: str) -> None:
    assert garbage_of(view(), PLAN).is_garbage(key)


@pytest.mark.parametrize("key", [*PENDING, *SUPERSEDED, *SUPERSEDED_TABLES])
def test_after_the_end_what_is_not_named_goes(key: str) -> None:
    assert garbage_of(view(FINISHED), PLAN).is_garbage(key)


@pytest.mark.parametrize("key", [*LIVE, *UNKNOWN, *LOG])
def test_after_the_end_what_is_named_stays(key: str) -> None:
    assert not garbage_of(view(FINISHED), PLAN).is_garbage(key)


def test_what_was_released_goes_in_every_copy() -> None:
    found = garbage_of(
        view(released(1, 2), Event(payload_from("policies_released", {"versions": [1, 5]}), "o", 2)), PLAN
    )

    for key in (folder("checkpoints", 1, 2), folder("policy", 1, 2), folder("policy", 1, 3), folder("policy", 5, 0)):
        assert found.is_garbage(key + "/manifest.json")
    assert not found.is_garbage(folder("checkpoints", 2, 2) + "/manifest.json")
    assert not found.is_garbage(folder("checkpoints", 1, 3) + "/manifest.json")


def test_of_a_deleted_job_spec_and_log_stay() -> None:
    found = garbage_of(view(FINISHED, DELETED), PLAN)

    assert [key for key in (*LIVE, *PENDING, *SUPERSEDED, *UNKNOWN, *LOG) if not found.is_garbage(key)] == LOG
    assert found.folders() == ("jobs/j/",)


def test_a_reward_model_that_is_being_measured_stays_until_its_stage_is_done() -> None:
    key = folder("policy", 4, 1, "reward") + "/model.safetensors"
    done = Event(
        payload_from("stage_completed", {"stage": "reward", "model": {"uri": "sha256:0", "digest": "0"}}), "o", 2, 3
    )

    assert not garbage_of(view(), PLAN).is_garbage(key)
    assert garbage_of(view(done), PLAN).is_garbage(key)


def test_running_jobs_are_not_searched_for_small_things() -> None:
    assert not any("batches" in prefix for prefix in garbage_of(view(), PLAN).folders())
    assert not any("batches" in name or "tokens" in name for name in garbage_of(view(), PLAN).named)
    assert "jobs/j/ppo/batches/" in garbage_of(view(FINISHED), PLAN).folders()


def named_by(found: JobView) -> set[str]:
    tables = (found.sealed, found.tokens, found.evaluations)
    keys = {said.key for table in tables for said in table.values()} | {each.key for each in found.checkpoints}
    return keys | {policy.uri.removeprefix("store:") + "/manifest.json" for policy in found.policies.values()}


@given(
    st.lists(st.tuples(st.sampled_from(["step", "save", "open", "release", "drop"]), st.integers(1, 8)), max_size=40),
    st.booleans(),
)
def test_no_log_names_garbage(actions: list[tuple[str, int]], end: bool) -> None:
    events: list[Event] = []
    attempt, saves = 0, list[tuple[int, int]]()
    for action, number in actions:
        if action == "open":
            attempt += 1
            opened: dict[str, Any] = {"learner_id": "", "address": "", "stage": "ppo", "from_step": 0}
            events.append(Event(payload_from("learner_opened", opened), "o", 1, attempt))
        elif action == "step":
            events.append(completed(number, attempt))
        elif action == "save":
            saves.append((number, attempt))
            events.append(saved(number, attempt))
        elif action == "release" and saves:
            events.append(released(*saves.pop(number % len(saves))))
        elif action == "drop":
            events.append(Event(payload_from("policies_released", {"versions": [number]}), "o", 1))
    events += [FINISHED] * end
    found = fold("j", [event.at(place) for place, event in enumerate(events, 1)])
    garbage: JobGarbage = garbage_of(found, make_plan("j"))

    dropped = {f"jobs/j/ppo/policy/{version}-" for version in found.released_policies}
    for key in named_by(found):
        # A version is completed once; this log, made by chance, may complete one again after it was given up.
        if not key.startswith(tuple(dropped)) and key.removesuffix("/manifest.json") not in garbage.released:
            assert not garbage.is_garbage(key)
