"""Processes killed and the queue wiped in mid-run: the job ends with the bits of an unbroken run."""

from collections.abc import Iterator

import pytest
from tests.e2e.metric_names import EVERY_STEP
from tests.e2e.stack import Stack, await_step, finish, running_stack
from tests.e2e.tasks import Spec, changed, count_symbol

from quatrain.client import Client, Job

STEPS = 24
EVERY = 5
# Between two checkpoints, so that there is something to replay.
KILL_AT = 7


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("faults")) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    folder = tmp_path_factory.mktemp("spec")
    held_out = str(folder / "held_out.jsonl")
    return changed(
        count_symbol(folder),
        ppo__steps=STEPS,
        ppo__staleness=1,
        ppo__eval_prompts=held_out,
        ppo__eval_every=EVERY,
        checkpoint__every_steps=EVERY,
    )


@pytest.fixture(scope="module")
def unbroken(stack: Stack, client: Client, spec: Spec) -> Job:
    """The same spec, left alone."""
    job = finish(stack, client, client.submit(spec))
    assert job.attempt == 1
    return job


def _same_history(client: Client, broken: Job, unbroken: Job) -> None:
    """Same weights, every step once, and the same numbers in each."""
    assert broken.weights_sha256 == unbroken.weights_sha256
    rows, expected = client.metrics(broken.id), client.metrics(unbroken.id)
    assert [row["step"] for row in rows] == list(range(1, STEPS + 1))
    for row, other in zip(rows, expected, strict=True):
        assert set(row) >= EVERY_STEP
        for name in ("reward/score_mean", "policy/loss", "kl/ref_seq", "eval/score_mean"):
            assert row.get(name) == other.get(name), f"{name} of step {row['step']}"
    events = client.events(broken.id)
    sealed = [event.data["step"] for event in events if event.type == "batch_sealed"]
    assert sealed == list(range(1, STEPS + 1))
    evaluated = [event.data["step"] for event in events if event.type == "evaluated"]
    assert evaluated == [0, 5, 10, 15, 20, 24]


def test_learner_killed(stack: Stack, client: Client, spec: Spec, unbroken: Job) -> None:
    job = client.submit(spec)
    await_step(client, job, KILL_AT)

    killed = stack.kill("learner-0")
    broken = finish(stack, client, job)

    _same_history(client, broken, unbroken)
    assert broken.attempt == 2
    events = client.events(job.id)
    failed = [event for event in events if event.type == "attempt_failed"]
    opened = [event for event in events if event.type == "learner_opened"]
    assert [event.data["reason"] for event in failed] == ["LEARNER_LOST"]
    assert [event.data["from_step"] for event in opened] == [0, failed[0].data["step"] // EVERY * EVERY]
    assert "RECOVERING" in [event.data["state"] for event in events if event.type == "state_changed"]
    stack.await_restart(killed)


@pytest.mark.parametrize(
    "name",
    [
        "rollout-0",
        "generation-0",
        pytest.param("reward-0", marks=pytest.mark.slow),
        pytest.param("reference-0", marks=pytest.mark.slow),
    ],
)
def test_stateless_process_killed(stack: Stack, client: Client, spec: Spec, unbroken: Job, name: str) -> None:
    job = client.submit(spec)
    await_step(client, job, KILL_AT)

    killed = stack.kill(name)
    broken = finish(stack, client, job)

    _same_history(client, broken, unbroken)
    assert broken.attempt == 1  # the learner never noticed
    stack.await_restart(killed)


def test_orchestrator_killed(stack: Stack, client: Client, spec: Spec, unbroken: Job) -> None:
    job = client.submit(spec)
    await_step(client, job, KILL_AT)

    updates = client.watch(job.id)
    next(updates)
    killed = stack.kill("orchestrator-0")
    last = list(updates)[-1]  # a watcher goes on by itself
    broken = finish(stack, client, job)

    assert last.job.state == "SUCCEEDED"
    assert last.revision == broken.revision
    _same_history(client, broken, unbroken)
    taken = [event for event in client.events(job.id) if event.type == "owner_taken"]
    assert len(taken) == 2
    stack.await_restart(killed)


def test_redis_wiped(stack: Stack, client: Client, spec: Spec, unbroken: Job) -> None:
    job = client.submit(spec)
    await_step(client, job, KILL_AT)

    with stack.redis() as redis:
        redis.flushall()
    broken = finish(stack, client, job)

    _same_history(client, broken, unbroken)
    assert broken.attempt == 1


def test_redis_killed(stack: Stack, client: Client, spec: Spec, unbroken: Job) -> None:
    job = client.submit(spec)
    await_step(client, job, KILL_AT)

    stack.kill("redis")
    broken = finish(stack, client, job)

    _same_history(client, broken, unbroken)
