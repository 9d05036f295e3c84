"""Real processes: paused in every stage, with its orchestrator killed on the way, and forked - the same bits."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
from tests.e2e.stack import JOB_DEADLINE, Stack, await_step, finish, running_stack, wait_until
from tests.e2e.tasks import Spec, changed, pipeline

from quatrain.client import Client, Job, Update
from quatrain.errors import Unavailable

pytestmark = pytest.mark.slow

STAGES = ("sft", "reward", "ppo")


@dataclass(frozen=True)
class Scene:
    """A stack, and a job that was left alone on it."""

    stack: Stack
    client: Client
    spec: Spec
    unbroken: Job


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    # Stages that are long enough to be paused in: an owner looks for intents once a second.
    spec = changed(pipeline(tmp_path_factory.mktemp("spec")), sft__epochs=10, reward__epochs=10)
    with running_stack(tmp_path_factory.mktemp("lifecycle")) as stack, stack.client() as client:
        yield Scene(stack, client, spec, finish(stack, client, client.submit(spec)))


def _state(scene: Scene, job: Job) -> str:
    try:
        return scene.client.get(job.id).state
    except Unavailable:
        return ""


def _rest(scene: Scene, job: Job) -> Job:
    """Waits until the job is paused and its learner free for the next one."""
    wait_until(lambda: _state(scene, job) == "PAUSED", JOB_DEADLINE, f"job {job.id} was not paused")
    return scene.client.get(job.id)


def _pause_in(scene: Scene, job: Job, stage: str) -> Job:
    def stepped(update: Update) -> bool:
        return update.job.stage == stage and update.job.step >= 2

    assert any(stepped(update) for update in scene.client.watch(job.id)), stage
    scene.client.pause(job.id, reason="lunch")
    return _rest(scene, job)


def _check_same(scene: Scene, job: Job, first_step: int = 1) -> None:
    """Same weights of every stage and same metrics of each step."""
    assert job.weights_sha256 == scene.unbroken.weights_sha256
    for stage in STAGES:
        expected = [row for row in scene.client.metrics(scene.unbroken.id, stage=stage) if row["step"] >= first_step]
        found = scene.client.metrics(job.id, stage=stage)
        if first_step > 1 and stage != "ppo":
            assert found == []
            continue
        assert [_plain(row) for row in found] == [_plain(row) for row in expected]


def _plain(row: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if not name.startswith(("time/", "throughput/", "attempt"))}


def test_paused_once_in_every_stage(scene: Scene) -> None:
    job = scene.client.submit(scene.spec)
    for stage in STAGES:
        paused = _pause_in(scene, job, stage)
        newest = scene.client.checkpoints(job.id)[-1]
        assert (paused.stage, newest.stage, newest.step) == (stage, stage, paused.step)
        other = scene.client.submit(scene.spec)  # The learner is free for it.
        wait_until(lambda: _state(scene, other) == "RUNNING", JOB_DEADLINE, "the learner was not free")  # noqa: B023
        scene.client.cancel(other.id, now=True)
        assert scene.stack.run_cli("job", "resume", job.id).code == 0

    finished = finish(scene.stack, scene.client, job)
    _check_same(scene, finished)
    assert finished.attempt == 1  # A pause is no loss.
    asked = [event.actor for event in scene.client.events(job.id) if event.type == "pause_requested"]
    assert len(asked) == 3


def test_paused_while_its_orchestrator_is_killed(scene: Scene) -> None:
    job = scene.client.submit(scene.spec)
    await_step(scene.client, job, 2)
    scene.client.pause(job.id, reason="lunch")
    killed = scene.stack.kill("orchestrator-0")
    scene.stack.await_restart(killed)

    _rest(scene, job)
    scene.client.resume(job.id)

    _check_same(scene, finish(scene.stack, scene.client, job))


def test_an_unchanged_fork_ends_the_same_and_a_changed_one_does_not(scene: Scene) -> None:
    client, source = scene.client, scene.unbroken
    events = len(client.events(source.id))

    made = scene.stack.run_cli("job", "fork", f"{source.id}@8", "-o", "name")
    same = finish(scene.stack, client, client.get(made.stdout.strip()))
    other = finish(scene.stack, client, client.fork(source.id, step=8, overrides=["ppo.kl.coef=0.5"]))

    assert same.forked_from is not None
    assert (same.forked_from.job, same.forked_from.step) == (source.id, 8)
    _check_same(scene, same, first_step=9)
    assert other.weights_sha256 != source.weights_sha256
    assert [row["kl/coef"] for row in client.metrics(other.id)] == [0.5] * 4
    assert len(client.events(source.id)) == events
