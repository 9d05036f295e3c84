"""Mode compose without an engine: what it makes for itself, what it asks for, and what compose.yaml promises."""

import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from quatrain.config import load_config
from quatrain.errors import InvalidInput
from quatrain.local import compose, stack
from quatrain.rpc.server.tokens import hash_of

FILE = Path(__file__).parents[3] / "compose.yaml"
# Answers to every question but that for images, of which it has those that the file beside it lists.
DOCKER = """#!/bin/sh
echo "$@" >>"$(dirname "$0")/calls"
if [ "$1 $2" = "image inspect" ]; then grep -qx "$3" "$(dirname "$0")/images"; fi
"""


@pytest.fixture
def docker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fake docker, the only engine in PATH; the folder with its `images` and `calls`."""
    folder = tmp_path / "bin"
    folder.mkdir()
    (folder / "docker").write_text(DOCKER)
    (folder / "docker").chmod(0o755)
    (folder / "images").write_text("".join(f"quatrain/{name}:0.1.0\n" for name in compose.IMAGES))
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    monkeypatch.setenv(compose.FILE_VARIABLE, str(FILE))
    monkeypatch.setattr(compose, "ENGINES", ("docker",))
    return folder


def calls(docker: Path) -> list[str]:
    """What compose was told, without the probes."""
    lines = (docker / "calls").read_text().splitlines()
    return [
        line.partition(" .env ")[2] or line for line in (x.replace("/.env", " .env") for x in lines) if "--file" in line
    ]


def test_secrets_are_made_once_and_for_the_user_alone(docker: Path, tmp_path: Path) -> None:
    home, other = tmp_path / "home", tmp_path / "other"
    stack.up(home, mode="compose")
    stack.up(other, mode="compose")
    first = (home / "compose" / ".env").read_text()
    stack.up(home, mode="compose")

    assert (home / "compose" / ".env").read_text() == first
    made, there = (dict(line.split("=", 1) for line in (x / "compose/.env").read_text().split()) for x in (home, other))
    for name in ("COMPOSE_PROJECT_NAME", "VALKEY_PASSWORD", "MINIO_SECRET_KEY"):
        assert made[name] != there[name]
    assert len(made["VALKEY_PASSWORD"]) == len(made["MINIO_SECRET_KEY"]) == 48
    for private in (".env", "token"):
        assert stat.S_IMODE((home / "compose" / private).stat().st_mode) == 0o600
    token = (home / "compose" / "token").read_text().strip()
    entries = yaml.safe_load((Path(made["QUATRAIN_TOKENS_FOLDER"]) / "tokens.yaml").read_text())
    assert [(each["name"], each["role"], each["sha256"]) for each in entries] == [("local", "admin", hash_of(token))]


def test_up_and_down_speak_to_compose(docker: Path, tmp_path: Path) -> None:
    stack.up(tmp_path, mode="compose")
    assert stack.choose_mode(tmp_path, replicas=False)[0] == "compose"
    stack.down(tmp_path)

    assert calls(docker) == [
        "up --detach --no-recreate --wait --wait-timeout 600 orchestrator rollout",
        "down --timeout 30",
    ]
    assert not compose.is_up(tmp_path)
    assert not (tmp_path / "endpoint.json").exists()


def test_data_are_removed_when_asked_alone(docker: Path, tmp_path: Path) -> None:
    compose.remove_data(tmp_path / "never")
    stack.up(tmp_path, mode="compose")
    stack.down(tmp_path)
    compose.remove_data(tmp_path)

    assert calls(docker)[1:] == ["down --timeout 30", "down --volumes --timeout 30"]


def test_says_what_is_missing(docker: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (docker / "images").write_text("quatrain/minio:0.1.0\n")
    with pytest.raises(InvalidInput, match=r"are missing \(generation, reward.*`make images` builds them"):
        stack.up(tmp_path, mode="compose")
    assert stack.choose_mode(tmp_path, replicas=False)[0] == "process"

    (docker / "docker").write_text("#!/bin/sh\nexit 1\n")
    with pytest.raises(InvalidInput, match="no compose answers here"):
        stack.up(tmp_path, mode="compose")

    monkeypatch.delenv(compose.FILE_VARIABLE)
    monkeypatch.setattr("sys.prefix", str(tmp_path / ".venv"))
    with pytest.raises(InvalidInput, match=r"there is no compose\.yaml"):
        stack.up(tmp_path, mode="compose")


def test_one_mode_at_a_time(docker: Path, tmp_path: Path) -> None:
    stack.up(tmp_path, mode="compose")

    with pytest.raises(InvalidInput, match="mode compose runs in"):
        stack.up(tmp_path, mode="process")
    with pytest.raises(InvalidInput, match="--replicas is for mode process"):
        stack.up(tmp_path, mode="compose", replicas={"rollout": 2})
    with pytest.raises(InvalidInput, match="mode 'podman'"):
        stack.up(tmp_path, mode="podman")


SERVICES: dict[str, Any] = yaml.safe_load(FILE.read_text())["services"]


def test_start_is_ordered_by_health() -> None:
    waits = {
        name: {each: how["condition"] for each, how in service.get("depends_on", {}).items()}
        for name, service in SERVICES.items()
    }
    models = ("generation", "reward", "reference", "learner")
    stores = {"bucket": "service_completed_successfully", "valkey": "service_healthy"}

    assert waits == {
        "valkey": {},
        "minio": {},
        "bucket": {"minio": "service_healthy"},
        **dict.fromkeys(models, stores),
        **dict.fromkeys(compose.LAST, dict.fromkeys(models, "service_healthy")),
    }


def test_git_ignores_the_secrets() -> None:
    ignored = subprocess.run(["git", "check-ignore", "--quiet", ".quatrain/compose/.env"], cwd=FILE.parent, check=False)

    assert ignored.returncode == 0


@pytest.mark.parametrize("name", SERVICES)
def test_each_container_is_confined(name: str) -> None:
    service = SERVICES[name]

    assert service["user"] == "10001:10001"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))
    assert bool(service.get("ports")) == (name == "orchestrator")
    assert service["networks"] == (["inside", "outside"] if name == "orchestrator" else ["inside"])


@pytest.mark.parametrize("name", SERVICES)
def test_settings_are_known_and_no_secret_is_fixed(name: str) -> None:
    settings = {key: str(value) for key, value in SERVICES[name].get("environment", {}).items()}
    ours = {key: value for key, value in settings.items() if key.startswith("QUATRAIN_")}
    plain = {key: "2" if "THREADS" in key else value.replace(":?", "-") for key, value in ours.items()}

    load_config(name, [], plain)

    for key, value in settings.items():
        if any(word in key for word in ("PASSWORD", "SECRET", "ACCESS", "AUTH", "URL")) and "FILE" not in key:
            assert "${" in value, key
