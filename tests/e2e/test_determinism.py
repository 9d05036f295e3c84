"""The same spec gives the same bits, on-policy and with generation one step ahead of training."""

from collections.abc import Iterator

import pytest
from tests.e2e.stack import Stack, finish, running_stack
from tests.e2e.tasks import Spec, changed, count_symbol

from quatrain.batches import read_batch
from quatrain.client import Client, Job
from quatrain.storage.folders import read_object
from quatrain.storage.local import LocalStore

STEPS = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("determinism"), {"rollout": 2}) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    return changed(count_symbol(tmp_path_factory.mktemp("spec")), ppo__steps=STEPS)


def _run(stack: Stack, client: Client, spec: Spec) -> Job:
    return finish(stack, client, client.submit(spec))


def _versions(stack: Stack, client: Client, job: Job) -> dict[int, set[int]]:
    """Policy versions of the samples of each step."""
    store = LocalStore(stack.home / "store")
    return {
        event.data["step"]: {
            row.policy_version for row in read_batch(read_object(store, event.data["key"], event.data["sha256"]))
        }
        for event in client.events(job.id)
        if event.type == "batch_sealed"
    }


def test_on_policy_runs_are_equal(stack: Stack, client: Client, spec: Spec) -> None:
    first, second = _run(stack, client, spec), _run(stack, client, spec)

    assert first.id != second.id
    assert first.weights_sha256 == second.weights_sha256
    assert _versions(stack, client, first) == {step: {step - 1} for step in range(1, STEPS + 1)}
    plain = ("time/", "throughput/", "attempt")
    for one, other in zip(client.metrics(first.id), client.metrics(second.id), strict=True):
        assert {k: v for k, v in one.items() if not k.startswith(plain)} == {
            k: v for k, v in other.items() if not k.startswith(plain)
        }


def test_another_seed_is_another_run(stack: Stack, client: Client, spec: Spec) -> None:
    first, other = _run(stack, client, spec), _run(stack, client, changed(spec, seed=8))

    assert first.weights_sha256 != other.weights_sha256


def test_runs_one_step_ahead_are_equal_and_pinned(stack: Stack, client: Client, spec: Spec) -> None:
    ahead = changed(spec, ppo__staleness=1)
    first, second = _run(stack, client, ahead), _run(stack, client, ahead)
    on_policy = _run(stack, client, spec)

    assert first.weights_sha256 == second.weights_sha256 != on_policy.weights_sha256
    pinned = {step: {max(0, step - 2)} for step in range(1, STEPS + 1)}
    assert _versions(stack, client, first) == _versions(stack, client, second) == pinned
    staleness = [row["sampler/staleness"] for row in client.metrics(first.id)]
    assert staleness == [0.0] + [1.0] * (STEPS - 1)


def test_two_jobs_at_once_give_what_each_gives_alone(stack: Stack, client: Client, spec: Spec) -> None:
    stack.scale(rollout=2, learner=2)
    alone = _run(stack, client, spec)

    jobs = [client.submit(spec), client.submit(changed(spec, name="beside", seed=9))]
    both = [finish(stack, client, job) for job in jobs]

    assert both[0].weights_sha256 == alone.weights_sha256


def test_generation_overlaps_training(stack: Stack, client: Client, spec: Spec) -> None:
    # Long completions and many epochs, so that both sides have something to do in a step.
    busy = changed(
        spec,
        ppo__steps=5,
        ppo__generation__max_new_tokens=24,
        ppo__optimizer__epochs=8,
    )
    on_policy = _times(client, _run(stack, client, busy))
    ahead = _times(client, _run(stack, client, changed(busy, ppo__staleness=1)))

    # Step 1 has nothing to overlap with; later ones find their rollouts made while the step before was trained.
    assert ahead["time/collect"] < 0.5 * ahead["time/generate"], f"{ahead} against {on_policy}"
    assert ahead["time/collect"] < 0.5 * on_policy["time/collect"], f"{ahead} against {on_policy}"


def _times(client: Client, job: Job) -> dict[str, float]:
    rows = client.metrics(job.id)[1:]
    return {name: sum(row[name] for row in rows) for name in ("time/collect", "time/generate", "time/train")}
