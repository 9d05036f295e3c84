"""Several replicas of everything that has no state: work spreads over them, and over those that join later."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest
from tests.e2e.stack import Stack, await_step, finish, running_stack, wait_until
from tests.e2e.tasks import Spec, changed, count_symbol

from quatrain.client import Client
from quatrain.v1 import rollout_pb2

JOIN_SECONDS = 10.0
"""Between a new replica that serves and its first work."""

METHODS = {"generation": "Generate", "reward": "Score", "reference": "ComputeReferenceLogprobs"}


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    replicas = {"rollout": 2, "generation": 2, "reward": 2}
    with running_stack(tmp_path_factory.mktemp("replicas"), replicas) as stack:
        yield stack


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as client:
        yield client


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> Spec:
    """Many small chunks, so that there is work to share."""
    return changed(count_symbol(tmp_path_factory.mktemp("spec")), ppo__chunk_size=4, ppo__steps=8)


@dataclass
class Makers:
    """Which worker made how many samples, as the job's stream of results said while they passed."""

    rollouts: Counter[str] = field(default_factory=Counter)


@contextmanager
def _observed(stack: Stack, job: str) -> Iterator[Makers]:
    makers, done = Makers(), threading.Event()
    thread = threading.Thread(target=_follow_results, args=(stack, job, makers, done), daemon=True)
    thread.start()
    try:
        yield makers
    finally:
        done.set()
        thread.join(10.0)


def _follow_results(stack: Stack, job: str, makers: Makers, done: threading.Event) -> None:
    after = "0"
    with stack.redis() as redis:
        while not done.is_set():
            for _, entries in redis.xread({f"quatrain:rollouts:{job}": after}, count=1000, block=100):
                for entry, fields in entries:
                    after = entry
                    for payload in fields.values():
                        makers.rollouts[_maker(payload)] += 1


def _maker(payload: bytes) -> str:
    """Name of the process: its lanes are numbered behind it."""
    return rollout_pb2.RolloutResult.FromString(payload).made_by.rpartition("-")[0]


def test_work_spreads_over_all_replicas(stack: Stack, client: Client, spec: Spec) -> None:
    before = {kind: stack.served(kind, method) for kind, method in METHODS.items()}

    job = client.submit(spec, job_id="spread")
    with _observed(stack, job.id) as makers:
        finish(stack, client, job)

    assert set(makers.rollouts) == {"rollout-0", "rollout-1"}
    assert min(makers.rollouts.values()) > 0.2 * makers.rollouts.total()
    for kind in ("generation", "reward"):
        calls = stack.served(kind, METHODS[kind])
        made = {name: count - before[kind][name] for name, count in calls.items()}
        assert len(made) == 2
        # 8 steps of 16 chunks; each replica did a good part of them.
        assert sum(made.values()) >= 8 * 16
        assert min(made.values()) > 0.2 * sum(made.values()), made


def test_results_do_not_depend_on_the_number_of_replicas(stack: Stack, client: Client, spec: Spec) -> None:
    many = finish(stack, client, client.submit(spec))
    stack.scale(rollout=1, generation=1, reward=1)
    one = finish(stack, client, client.submit(spec))

    assert many.weights_sha256 == one.weights_sha256


def test_replicas_that_join_get_work_within_seconds(stack: Stack, client: Client, spec: Spec) -> None:
    stack.scale(rollout=1, generation=1, reward=1)
    job = client.submit(changed(spec, ppo__steps=400), job_id="joined")
    await_step(client, job, 2)

    with _observed(stack, job.id) as makers:
        stack.scale(rollout=2, generation=2, reward=2, reference=2)
        joined = time.monotonic()
        for kind, method in METHODS.items():
            wait_until(
                lambda kind=kind, method=method: stack.served(kind, method)[f"{kind}-1"] > 0,  # type: ignore[misc]
                JOIN_SECONDS,
                f"the new {kind} replica had no work",
            )
        wait_until(lambda: makers.rollouts["rollout-1"] > 0, JOIN_SECONDS, "the new rollout worker had no work")
        waited = time.monotonic() - joined
    client.cancel(job.id, now=True)

    assert client.wait(job.id, timeout=60.0).state == "CANCELLED"
    assert waited < JOIN_SECONDS
