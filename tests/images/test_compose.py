"""The whole of compose.yaml, started as a person starts it: a job to its end, and containers killed in mid-run."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml
from tests.e2e.stack import await_step, wait_until
from tests.e2e.tasks import Spec, changed, pipeline, write_spec
from tests.images.engine import Engine, run_cli

from quatrain.client import Client, Job
from quatrain.errors import Unavailable
from quatrain.local.home import find_token, read_endpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "courteous-replies"
SERVICES = ("generation", "learner", "minio", "orchestrator", "reference", "reward", "rollout", "valkey")
UP_SECONDS = 900.0
DOWN_SECONDS = 180.0
JOB_SECONDS = 1200.0
HEALTHY_SECONDS = 300.0


@dataclass(frozen=True)
class ComposeStack:
    """A stack of containers whose settings lie in `home`."""

    engine: Engine
    home: Path

    def client(self) -> Client:
        endpoint = read_endpoint(self.home)
        assert endpoint is not None
        return Client(endpoint.api, token=find_token(endpoint, {}))

    @property
    def project(self) -> str:
        """What the names of its volumes begin with."""
        settings = dict(line.split("=", 1) for line in (self.home / "compose" / ".env").read_text().splitlines())
        return settings["COMPOSE_PROJECT_NAME"]

    def container(self, service: str) -> str:
        """Id of a service's container."""
        label = f"label=com.docker.compose.project={self.project}"
        found = self.engine.output(
            "ps", "--all", "--quiet", "--filter", label, "--filter", f"label=com.docker.compose.service={service}"
        )
        return found.strip()

    def answers(self) -> bool:
        """Whether the API serves."""
        try:
            with self.client() as client:
                client.list(limit=1)
        except Unavailable:
            return False
        return True

    def kill(self, service: str) -> None:
        """SIGKILL to its process, as the kernel sends it when memory ends; returns when the container runs again.

        Engines take their own `kill` for a wish that it stays down. Needs the right to kill the process: root.
        """
        container = self.container(service)
        before = self._started(container)
        os.kill(int(self.engine.output("inspect", "--format", "{{.State.Pid}}", container)), signal.SIGKILL)

        def again() -> bool:
            return self._started(container) not in ("", before)

        wait_until(again, HEALTHY_SECONDS, f"{service} was not started again")

    def _started(self, container: str) -> str:
        shown = self.engine.output("inspect", "--format", "{{.State.Running}} {{.State.StartedAt}}", container)
        return shown if shown.startswith("true") else ""

    def logs(self) -> str:
        """The ends of all logs, for messages of failed tests."""
        parts = []
        for service in SERVICES:
            done = self.engine.run("logs", "--tail=15", self.container(service))
            parts.append(f"--- {service}\n{done.stdout}{done.stderr}")
        return "\n".join(parts)


@pytest.fixture(scope="module")
def stack(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeStack]:
    home = tmp_path_factory.mktemp("compose")
    stack = ComposeStack(engine, home)
    try:
        done = run_cli(engine, home, "up", "--mode", "compose", timeout=UP_SECONDS)
        assert done.returncode == 0, f"{done.stderr}\n{stack.logs()}"
        yield stack
    finally:
        run_cli(engine, home, "down", timeout=DOWN_SECONDS)
        _remove_volumes(stack)


def _remove_volumes(stack: ComposeStack) -> None:
    listed = stack.engine.output("volume", "ls", "--format", "{{.Name}}").split()
    for name in listed:
        if name.startswith(f"{stack.project}_"):
            stack.engine.output("volume", "rm", name)


def finish(stack: ComposeStack, client: Client, job: Job) -> Job:
    finished = client.wait(job.id, timeout=JOB_SECONDS)
    assert finished.state == "SUCCEEDED", f"{finished.state}: {finished.error}\n{stack.logs()}"
    return finished


def test_status_and_a_second_start(stack: ComposeStack) -> None:
    before = {each: stack.container(each) for each in SERVICES}

    again = run_cli(stack.engine, stack.home, "up", timeout=UP_SECONDS)
    shown = run_cli(stack.engine, stack.home, "status", "-o", "json", timeout=60.0)

    assert again.returncode == 0, again.stderr
    assert "mode: compose" in again.stderr
    processes = {row["name"]: row["state"] for row in yaml.safe_load(shown.stdout)["processes"]}
    assert processes.pop("bucket").startswith("exited")
    assert processes == dict.fromkeys(SERVICES, "running healthy")
    assert {each: stack.container(each) for each in SERVICES} == before


def test_only_the_api_is_reachable_and_wants_a_token(stack: ComposeStack) -> None:
    published = {each: stack.engine.output("port", stack.container(each)).strip() for each in SERVICES}

    endpoint = read_endpoint(stack.home)
    assert endpoint is not None
    assert published.pop("orchestrator") == f"50050/tcp -> {endpoint.api}"
    assert endpoint.api.startswith("127.0.0.1:")
    assert set(published.values()) == {""}
    with Client(endpoint.api, token="qt_wrong") as stranger, pytest.raises(Exception, match="token"):
        stranger.list()


def test_example_runs_to_its_end(stack: ComposeStack, tmp_path: Path) -> None:
    folder = tmp_path / "example"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("result", "base-model", "__pycache__"))
    for script in ("make_data.py", "make_model.py"):
        subprocess.run([sys.executable, script], cwd=folder, check=True, timeout=300.0)
    shorter = ["ppo.steps=3", "sft.epochs=1", "ppo.prompts_per_step=32"]

    with stack.client() as client:
        job = finish(stack, client, client.submit(folder / "spec.yaml", overrides=shorter))
        client.download(job.id, tmp_path / "model")

        assert job.step == 3
        assert (tmp_path / "model" / "model.safetensors").stat().st_size > 100_000
        assert len(client.rollouts(job.id, evaluation=True, step=3)) > 0


def test_killed_containers_change_nothing(stack: ComposeStack, tmp_path: Path) -> None:
    spec = changed(pipeline(tmp_path), ppo__steps=2 * len(SERVICES) + 2)
    with stack.client() as client:
        undisturbed = finish(stack, client, client.submit(write_spec(tmp_path / "spec.yaml", spec)))

    disturbed = _run_with_kills(stack, spec, tmp_path)

    assert disturbed.id != undisturbed.id
    assert disturbed.weights_sha256 == undisturbed.weights_sha256


def _run_with_kills(stack: ComposeStack, spec: Spec, folder: Path) -> Job:
    """Each kind of container is killed once, two steps after the one before."""
    path = write_spec(folder / "disturbed.yaml", spec)
    with stack.client() as client:
        job = client.submit(path)
    for number, service in enumerate(SERVICES):
        with stack.client() as client:
            await_step(client, job, 1 + 2 * number, JOB_SECONDS)
        stack.kill(service)
        wait_until(stack.answers, HEALTHY_SECONDS, f"the API did not answer after {service} was killed")
    with stack.client() as client:
        return finish(stack, client, job)


def test_data_outlive_the_containers(stack: ComposeStack) -> None:
    with stack.client() as client:
        before = {job.id: job.weights_sha256 for job in client.list()}

    assert run_cli(stack.engine, stack.home, "down", timeout=DOWN_SECONDS).returncode == 0
    assert run_cli(stack.engine, stack.home, "status", timeout=60.0).returncode == 6
    done = run_cli(stack.engine, stack.home, "up", "--mode", "compose", timeout=UP_SECONDS)

    assert done.returncode == 0, done.stderr
    with stack.client() as client:
        assert {job.id: job.weights_sha256 for job in client.list()} == before != {}
