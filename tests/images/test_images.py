"""What holds for each image as it was built: its user, its file system, its contents, its labels, its health check."""

import json
import re
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from tests.e2e.stack import wait_until
from tests.images.engine import Engine, tag

MODULES = {
    "generation": ("quatrain.generation.__main__",),
    "reward": ("quatrain.reward.__main__",),
    "reference": ("quatrain.reference.__main__",),
    "learner": ("quatrain.learner.__main__",),
    "orchestrator": ("quatrain.orchestrator.__main__", "quatrain.orchestrator.rollout.__main__"),
}
SERVICES = tuple(MODULES)
WITH_TORCH = ("generation", "reward", "reference", "learner")
ALL = (*SERVICES, "minio", "valkey")
BASES = ("base", "torch")
EXTRAS = ("generation", "reward", "reference", "learner", "orchestrator")
ROOT = Path(__file__).parents[2]
TOOLS = ("gcc", "cc", "g++", "clang", "ld", "as", "make", "go", "pip", "pip3", "git", "curl", "wget")
# As in Kubernetes at Pod Security `restricted`, and in compose.yaml.
RESTRICTED = ("--read-only", "--cap-drop=ALL", "--security-opt=no-new-privileges", "--tmpfs=/tmp", "--network=none")
# A volume gets the owner of the folder in the image; a tmpfs in its place would be root's with some runtimes.
CACHE = "--volume=/var/cache/quatrain"
HEALTHY_SECONDS = 300.0
SECOND = 1_000_000_000
"""Images count in nanoseconds."""
PROBE = f"""
import importlib.util, json, os, shutil, sys, tempfile

def writable(folder):
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False

cache = os.path.expanduser("~root/.cache")
for module in sys.argv[1:]:
    importlib.import_module(module)
print(json.dumps({{
    "user": [os.getuid(), os.getgid(), os.getgroups()],
    "writable": [each for each in ("/", "/etc", "/usr", "/opt/quatrain", "/home", "/var", "/tmp") if writable(each)],
    "tools": [each for each in {TOOLS!r} if shutil.which(each)],
    "left": [each for each in (cache, "/var/lib/apt/lists/lock", "/opt/build/pip") if os.path.exists(each)],
    "secrets": os.listdir("/run/secrets") if os.path.isdir("/run/secrets") else [],
    "modules": [each for each in ("pip", "pytest", "mypy", "triton", "nvidia") if importlib.util.find_spec(each)],
    "torch": importlib.util.find_spec("torch") is not None,
}}))
"""
# Installed distributions by their normalised names.
VERSIONS = """
import json, re
from importlib.metadata import distributions

print(json.dumps({re.sub("[-_.]+", "-", each.name).lower(): each.version for each in distributions()}))
"""


@contextmanager
def container(engine: Engine, *arguments: str) -> Iterator[str]:
    """A container in the background; its id."""
    name = engine.output("run", "--detach", *RESTRICTED, CACHE, *arguments).strip()
    try:
        yield name
    finally:
        engine.run("rm", "--force", "--volumes", "--time=0", name)


def normalised(name: str) -> str:
    """A distribution's name as pip compares it."""
    return re.sub("[-_.]+", "-", name).lower()


@pytest.mark.parametrize("name", [*ALL, *BASES])
def test_runs_as_nobody_special_with_nothing_that_builds(engine: Engine, name: str) -> None:
    modules = MODULES.get(name, ())
    command = ("run", "--rm", *RESTRICTED, "--entrypoint=python", tag(name), "-c", PROBE, *modules)

    found = json.loads(engine.output(*command))

    assert found == {
        "user": [10001, 10001, [10001]],
        "writable": ["/tmp"],
        "tools": [],
        "left": [],
        "secrets": [],
        "modules": [],
        "torch": name in (*WITH_TORCH, "torch"),
    }


@pytest.mark.parametrize("name", EXTRAS)
def test_holds_one_extra_at_the_pinned_versions(engine: Engine, name: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {normalised(line.partition("==")[0]): line.partition("==")[2] for line in lines if "==" in line}
    wanted = {normalised(Requirement(each).name) for each in project["optional-dependencies"][name]}
    others = {normalised(Requirement(each).name) for each in project["optional-dependencies"]["dev"]} - wanted

    found = json.loads(engine.output("run", "--rm", *RESTRICTED, "--entrypoint=python", tag(name), "-c", VERSIONS))

    assert found.pop("quatrain") == version("quatrain")
    assert wanted <= found.keys()
    assert not others & found.keys() - {normalised(Requirement(each).name) for each in project["dependencies"]}
    assert {
        each: (at, pinned.get(each)) for each, at in found.items() if at.partition("+")[0] != pinned.get(each)
    } == {}


@pytest.mark.parametrize("name", [*ALL, *BASES, "build"])
def test_what_serves_has_a_health_check(engine: Engine, name: str) -> None:
    image = engine.image(name)
    # Docker has it in another place than podman.
    check: dict[str, Any] = image.get("Healthcheck") or image["Config"].get("Healthcheck") or {}

    if name in ALL:
        assert check["Test"][0] == "CMD"
        assert check["Timeout"] >= 20 * SECOND
        assert check["Retries"] * (check["Interval"] + check["Timeout"]) <= 120 * SECOND
    else:
        assert not check


@pytest.mark.parametrize("name", [*ALL, *BASES, "build"])
def test_says_what_it_is(engine: Engine, name: str) -> None:
    labels = engine.image(name)["Config"]["Labels"]

    assert labels["org.opencontainers.image.title"] == f"quatrain/{name}"
    assert labels["org.opencontainers.image.version"] == version("quatrain")
    assert labels["org.opencontainers.image.licenses"]
    assert len(labels["org.opencontainers.image.revision"]) == 40
    history = engine.output("history", "--no-trunc", tag(name))
    assert "PIP_INDEX" not in history
    assert "BEGIN CERTIFICATE" not in history


def test_services_with_models_share_torch(engine: Engine) -> None:
    shared = engine.image("torch")["RootFS"]["Layers"]

    for name in WITH_TORCH:
        assert engine.image(name)["RootFS"]["Layers"][: len(shared)] == shared
    slim = engine.image("base")["RootFS"]["Layers"]
    for name in ("orchestrator", "minio", "valkey"):
        layers = engine.image(name)["RootFS"]["Layers"]
        assert layers[: len(slim)] == slim
        assert layers[: len(shared)] != shared


@pytest.mark.parametrize("name", SERVICES)
def test_refuses_to_serve_others_unprotected(engine: Engine, name: str) -> None:
    storage = ("--env=QUATRAIN_STORAGE__KIND=local", "--env=QUATRAIN_STORAGE__ROOT=/tmp/store")

    done = engine.run("run", "--rm", *RESTRICTED, CACHE, *storage, "--env=QUATRAIN_QUEUE__URL=memory://", tag(name))

    assert done.returncode == 2, done.stderr
    assert ("without tokens" if name == "orchestrator" else "without TLS") in done.stderr


@pytest.mark.parametrize("name", ["generation", "reward", "reference", "learner", "minio", "valkey"])
def test_becomes_healthy_and_ends_when_asked(engine: Engine, name: str) -> None:
    settings = (
        "--env=QUATRAIN_SERVER__INSECURE=true",
        "--env=QUATRAIN_STORAGE__KIND=local",
        "--env=QUATRAIN_STORAGE__ROOT=/tmp/store",
    )
    storage = ("--volume=/data",) if name in ("minio", "valkey") else ()

    with container(engine, *settings, *storage, tag(name)) as running:

        def healthy() -> bool:
            status = engine.output("inspect", "--format", "{{.State.Status}} {{.State.Health.Status}}", running)
            assert "exited" not in status, engine.run("logs", running).stderr
            return "healthy" in status.replace("unhealthy", "")

        wait_until(healthy, HEALTHY_SECONDS, f"{name} did not become healthy")
        began = time.monotonic()
        engine.output("stop", "--time=30", running)
        # Killed after 30 s if it does not follow SIGTERM, which would be exit code 137.
        code = engine.output("inspect", "--format", "{{.State.ExitCode}}", running).strip()
        assert (code, time.monotonic() - began < 30.0) == ("0", True)
