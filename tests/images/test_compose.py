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
from tests.images.engine import Engine, run_cli

from quatrain.client import Client, Job
from quatrain.errors import Unavailable
from quatrain.local.home import find_token, read_endpoint

EXAMPLE = Path(__file__).parents[2] / "examples" / "courteous-replies"
SERVICES = ("generation", "learner", "minio", "orchestrator", "reference", "reward", "rollout", "valkey")
# Long enough that every kind of container is killed before the end, however soon it is back.
STEPS = 3 * len(SERVICES) + 4
SHORTER = (f"ppo.steps={STEPS}", "sft.epochs=1", "ppo.prompts_per_step=32")
STORES = ("minio", "valkey")
MOUNTS = "{{range .Mounts}}{{.Name}}:{{.Destination}} {{end}}"
UP_SECONDS = 900.0
DOWN_SECONDS = 180.0
JOB_SECONDS = 1200.0
HEALTHY_SECONDS = 300.0
REMOVE_DATA = "import pathlib, sys; from quatrain.local import compose; compose.remove_data(pathlib.Path(sys.argv[1]))"


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

    def volumes(self) -> list[str]:
        """Names of its volumes."""
        listed = self.engine.output("volume", "ls", "--format", "{{.Name}}").split()
        return sorted(name for name in listed if name.startswith(f"{self.project}_"))

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

        Engines read their own `kill` as a request that it stays down. Needs the right to kill the process: root.
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
        # As `make clean` does.
        command = [sys.executable, "-c", REMOVE_DATA, str(home)]
        subprocess.run(command, env=engine.environment, check=True, timeout=DOWN_SECONDS)
        assert stack.volumes() == []


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


def test_each_container_is_confined(stack: ComposeStack) -> None:
    shown = "{{.HostConfig.ReadonlyRootfs}} {{.HostConfig.Privileged}} {{.State.Pid}}"

    for service in SERVICES:
        read_only, privileged, pid = stack.engine.output("inspect", "--format", shown, stack.container(service)).split()
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())

        assert (service, read_only, privileged) == (service, "true", "false")
        assert (service, set(status["Uid"].split()), set(status["Gid"].split())) == (service, {"10001"}, {"10001"})
        assert (service, int(status["CapBnd"], 16), status["NoNewPrivs"].strip()) == (service, 0, "1")


def test_stores_keep_what_they_have(stack: ComposeStack) -> None:
    persistence = stack.engine.output("exec", stack.container("valkey"), "valkey-cli", "INFO", "persistence")
    mounted = {each: stack.engine.output("inspect", "--format", MOUNTS, stack.container(each)) for each in STORES}

    assert "aof_enabled:1" in persistence.split()
    assert {each: names.split() for each, names in mounted.items()} == {
        each: [f"{stack.project}_{each}:/data"] for each in STORES
    }


def test_only_the_api_is_reachable_and_wants_a_token(stack: ComposeStack) -> None:
    published = {each: stack.engine.output("port", stack.container(each)).strip() for each in SERVICES}

    endpoint = read_endpoint(stack.home)
    assert endpoint is not None
    assert published.pop("orchestrator") == f"50050/tcp -> {endpoint.api}"
    assert endpoint.api.startswith("127.0.0.1:")
    assert set(published.values()) == {""}
    with Client(endpoint.api, token="qt_wrong") as stranger, pytest.raises(Exception, match="token"):
        stranger.list()


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's folder with all that it makes for itself."""
    folder = tmp_path_factory.mktemp("example") / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("result", "base-model", "__pycache__"))
    for script in ("make_data.py", "make_model.py"):
        subprocess.run([sys.executable, script], cwd=folder, check=True, timeout=300.0)
    return folder


@pytest.fixture(scope="module")
def undisturbed(stack: ComposeStack, example: Path) -> Job:
    """The example's job at its end."""
    with stack.client() as client:
        return finish(stack, client, client.submit(example / "spec.yaml", overrides=SHORTER))


def test_example_runs_to_its_end(stack: ComposeStack, undisturbed: Job, tmp_path: Path) -> None:
    with stack.client() as client:
        client.download(undisturbed.id, tmp_path / "model")

        assert undisturbed.step == STEPS
        assert (tmp_path / "model" / "model.safetensors").stat().st_size > 100_000
        assert len(client.rollouts(undisturbed.id, evaluation=True, step=STEPS)) > 0


def test_killed_containers_change_nothing(stack: ComposeStack, undisturbed: Job, example: Path) -> None:
    """Each kind of container is killed once, three steps after the one before."""
    with stack.client() as client:
        job = client.submit(example / "spec.yaml", overrides=SHORTER)
    for number, service in enumerate(SERVICES):
        with stack.client() as client:
            await_step(client, job, 1 + 3 * number, JOB_SECONDS)
        stack.kill(service)
        wait_until(stack.answers, HEALTHY_SECONDS, f"the API did not answer after {service} was killed")
    with stack.client() as client:
        disturbed = finish(stack, client, job)

    assert disturbed.id != undisturbed.id
    assert disturbed.weights_sha256 == undisturbed.weights_sha256 != ""


def test_data_outlive_the_containers(stack: ComposeStack) -> None:
    with stack.client() as client:
        before = {job.id: job.weights_sha256 for job in client.list()}

    assert run_cli(stack.engine, stack.home, "down", timeout=DOWN_SECONDS).returncode == 0
    assert run_cli(stack.engine, stack.home, "status", timeout=60.0).returncode == 6
    done = run_cli(stack.engine, stack.home, "up", "--mode", "compose", timeout=UP_SECONDS)

    assert done.returncode == 0, done.stderr
    with stack.client() as client:
        assert {job.id: job.weights_sha256 for job in client.list()} == before != {}
