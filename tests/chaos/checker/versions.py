"""I4: policy versions rise by one, and every sample is of the version that its step is pinned to."""

from collections.abc import Iterator
from typing import Any

from tests.chaos.checker.history import History
from tests.chaos.checker.verdict import Case, Part


def _no_policy(case: Case) -> str:
    return "" if case.history.last("policy_published") else "no policy was published"


def _published(history: History) -> Iterator[tuple[int, dict[str, Any]]]:
    """Every (revision, policy) that the log names, in order."""
    for event in history.of("policy_published", "step_completed"):
        model = event.data.get("model") or event.data.get("policy")
        if event.data["stage"] == "ppo" and model is not None:
            yield event.revision, model


def _rise_by_one(case: Case) -> Iterator[str]:
    history = case.history
    expected = history.first_version
    for revision, model in _published(history):
        if model.get("policy_version") != expected:
            yield f"event {revision} publishes version {model.get('policy_version')}, expected is {expected}"
        expected = int(model.get("policy_version") or 0) + 1
    for event in history.of("step_completed"):
        if event.data["stage"] != "ppo":
            continue
        policy = event.data.get("policy")
        if policy is None:
            yield f"{event} names no policy"
        elif policy["policy_version"] != event.data["step"]:
            yield f"{event} publishes version {policy['policy_version']}"


def _steps_in_order(case: Case) -> Iterator[str]:
    history = case.history
    done = history.first_version
    for event in history.of("step_completed", "batch_sealed"):
        if event.data["stage"] != "ppo":
            continue
        step = event.data["step"]
        if event.type == "step_completed":
            if step != done + 1:
                yield f"{event} follows step {done}"
            done = step
            seal = history.seals.get(step)
            if seal is None or seal.revision > event.revision:
                yield f"{event} was trained before its batch was sealed"
        elif step > done + 1:
            yield f"{event} was sealed while step {done + 1} was not done"


def _sealed_versions(case: Case) -> Iterator[str]:
    history = case.history
    staleness, first = int(history.ppo["staleness"]), history.first_version
    for event in history.of("batch_sealed"):
        pinned = max(first, event.data["step"] - 1 - staleness)
        if event.data["policy_version"] != pinned:
            yield f"{event} has policy version {event.data['policy_version']}, pinned is {pinned}"
    known: dict[Any, int] = {}
    for revision, model in _published(history):
        known.setdefault(model.get("policy_version"), revision)
    for event in history.of("batch_sealed", "evaluated"):
        version = event.data.get("policy_version", event.data["step"])
        if known.get(version, event.revision) >= event.revision:
            yield f"{event} used version {version} before an event named it"


def _sample_versions(case: Case) -> Iterator[str]:
    history = case.history
    digests: dict[Any, str] = {}
    for _, model in _published(history):
        digests.setdefault(model.get("policy_version"), model["digest"])
    for batch in case.batches:
        version = batch.event.data.get("policy_version", batch.step)
        for row in batch.rows:
            if row["policy_version"] != version:
                yield f"{batch}: rollout {row['rollout_id']} has version {row['policy_version']}, pinned is {version}"
            elif row["policy_digest"] != digests.get(version):
                yield f"{batch}: rollout {row['rollout_id']} was made by other weights than version {version}'s"


PARTS = [
    Part("I4", "versions rise by one", _no_policy, _rise_by_one),
    Part("I4", "steps in order", _no_policy, _steps_in_order),
    Part("I4", "pinned versions", _no_policy, _sealed_versions),
    Part("I4", "samples' versions", _no_policy, _sample_versions),
]
