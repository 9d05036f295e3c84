"""The container engine that the tests use: docker where it answers, else podman behind docker's API."""

import json
import os
import resource
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tests.cluster.programs import DOCKER_COMPOSE, built
from tests.e2e.stack import wait_until

DEADLINE = 120.0
CHECK_SECONDS = 2.0
MOST = 1000
"""Open files of a process, and processes of a user, that a container may have."""


@dataclass(frozen=True)
class Engine:
    """docker or podman, and the environment in which it and compose run."""

    program: str
    environment: dict[str, str]

    def run(self, *arguments: str, timeout: float = DEADLINE) -> "subprocess.CompletedProcess[str]":
        """The program's end, whatever its exit code."""
        return subprocess.run(
            [self.program, *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def output(self, *arguments: str, timeout: float = DEADLINE) -> str:
        """Its output; it must succeed."""
        done = self.run(*arguments, timeout=timeout)
        assert done.returncode == 0, f"{self.program} {' '.join(arguments)}: {done.stderr}"
        return done.stdout

    def image(self, name: str) -> dict[str, Any]:
        """What is known of an image of this version."""
        found: dict[str, Any] = json.loads(self.output("image", "inspect", tag(name)))[0]
        return found


def tag(name: str) -> str:
    """Name of one of our images with this version."""
    return f"quatrain/{name}:{version('quatrain')}"


@contextmanager
def running_engine(folder: Path) -> Iterator[Engine]:
    """The engine, with compose in PATH."""
    tools = folder / "bin"
    tools.mkdir()
    (tools / "docker-compose").symlink_to(built(DOCKER_COMPOSE))
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    docker = Engine("docker", environment)
    if shutil.which("docker") and docker.run("version").returncode == 0:
        yield docker
        return
    with _podman(folder, environment) as engine:
        yield engine


@contextmanager
def _podman(folder: Path, environment: dict[str, str]) -> Iterator[Engine]:
    """Podman with its service, and with health checks made by us: it leaves their timing to systemd."""
    # Podman asks for more than it may have where it may not raise limits; these are enough for us.
    limits = {name: min(resource.getrlimit(number)[1] % 2**63, MOST) for name, number in _LIMITS.items()}
    shown = ", ".join(f'"{name}={most}:{most}"' for name, most in limits.items())
    settings = folder / "containers.conf"
    settings.write_text(
        f'[containers]\ndefault_ulimits = [{shown}]\n[engine]\nruntime = "runc"\n'
        # Our images are in no registry, so their short names must stand for what is here.
        "compat_api_enforce_docker_hub = false\n"
    )
    socket = folder / "podman.sock"
    extra = {
        "CONTAINERS_CONF": str(settings),
        "DISABLE_HC_SYSTEMD": "true",
        "DOCKER_HOST": f"unix://{socket}",
    }
    engine = Engine("podman", {**environment, **extra})
    with (folder / "podman.log").open("wb") as log:
        service = subprocess.Popen(
            ["podman", "system", "service", "--time", "0", f"unix://{socket}"],
            env=engine.environment,
            stdout=log,
            stderr=log,
        )
    stop = threading.Event()
    checks = threading.Thread(target=_check_all, args=(engine, stop))
    try:
        wait_until(socket.exists, DEADLINE, "podman's service did not start")
        checks.start()
        yield engine
    finally:
        stop.set()
        if checks.is_alive():
            checks.join(DEADLINE)
        service.terminate()
        service.wait(DEADLINE)


_LIMITS = {"nofile": resource.RLIMIT_NOFILE, "nproc": resource.RLIMIT_NPROC}


def _check_all(engine: Engine, stop: threading.Event) -> None:
    """Runs the health check of each container again and again."""
    while not stop.wait(CHECK_SECONDS):
        listed = engine.run("ps", "--format", "{{.ID}} {{.Status}}")
        for line in listed.stdout.splitlines():
            container, _, status = line.partition(" ")
            # Only what says that it has a check, and is not known to be well: each look costs a start of Python.
            if "(starting)" in status or "(unhealthy)" in status:
                engine.run("healthcheck", "run", container)


def run_cli(engine: Engine, home: Path, *arguments: str, timeout: float) -> "subprocess.CompletedProcess[str]":
    """Our command line, with its stack in `home`."""
    return subprocess.run(
        [sys.executable, "-m", "quatrain.cli", *arguments],
        env={**engine.environment, "QUATRAIN_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
