"""The local stack in containers: `quatrain up --mode compose`, over the `compose.yaml` of the sources.

Passwords and the token are made at the first start, in `compose/` of the state folder; the data are volumes. It runs
docker's compose (or podman's, where `podman compose` finds one); other engines through DOCKER_HOST.
"""

import hashlib
import json
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from quatrain.errors import InvalidInput, Unavailable
from quatrain.local.home import Endpoint, remove_endpoint, write_endpoint
from quatrain.local.ports import free_port, is_free
from quatrain.process.files import write_whole
from quatrain.rpc.server.tokens import line_of, new_token

FILE_VARIABLE = "QUATRAIN_COMPOSE_FILE"
TOOLS = (("docker", "compose"), ("docker-compose",), ("podman", "compose"))
ENGINES = ("docker", "podman")
IMAGES = ("generation", "reward", "reference", "learner", "orchestrator", "minio")
# No other service waits for these two; when they have started, all have.
LAST = ("orchestrator", "rollout")
API_PORT = 50050
READY_SECONDS = 600
PROBE_SECONDS = 30.0
MAX_SECONDS = 2.0 * READY_SECONDS


@dataclass(frozen=True)
class Container:
    """A container as people see it: its service, state (`running`), health (`healthy`; empty without a check), and the
    command that shows its log."""

    name: str
    state: str
    health: str
    log: str


def is_up(home: Path) -> bool:
    """Return whether a stack of containers was started in `home` and not taken down."""
    return (_folder(home) / "running").exists()


def why_not() -> str | None:
    """Return what is missing for this mode and how to get it; None when all is there."""
    if _compose_file() is None:
        return f"there is no compose.yaml, which comes with the sources; work in a checkout or set {FILE_VARIABLE}"
    if _tool() is None:
        tried = ", ".join(" ".join(tool) for tool in TOOLS)
        return f"no compose answers here (tried {tried}); install one and start its engine"
    missing = [image for image in IMAGES if not _has_image(f"quatrain/{image}:{version('quatrain')}")]
    if missing:
        return f"images of version {version('quatrain')} are missing ({', '.join(missing)}); `make images` builds them"
    return None


def up(home: Path) -> None:
    """Start what is missing and wait until all of it is healthy. Idempotent.

    Raises InvalidInput when something that it needs is not there, Unavailable when the stack does not get ready.
    """
    reason = why_not()
    if reason is not None:
        raise InvalidInput(f"mode compose: {reason}")
    folder = _folder(home)
    settings = _settings(folder)
    write_whole(folder / "running", "")
    # Running containers stay: with podman, compose would take its own containers for changed ones.
    _run(home, "up", "--detach", "--no-recreate", "--wait", "--wait-timeout", str(READY_SECONDS), *LAST)
    port = settings["QUATRAIN_API_PORT"]
    write_endpoint(home, Endpoint(api=f"127.0.0.1:{port}", token_file=str(folder / "token")))


def down(home: Path) -> None:
    """End the containers; the volumes with the data stay."""
    _run(home, "down", "--timeout", "30")
    _forget(home)


def remove_data(home: Path) -> None:
    """End the containers and remove the volumes with the data; do nothing where no stack was ever started."""
    if (_folder(home) / ".env").exists():
        _run(home, "down", "--volumes", "--timeout", "30")
        _forget(home)


def containers(home: Path) -> list[Container]:
    """Return all containers, also those that have ended."""
    text = _run(home, "ps", "--all", "--format", "json")
    # Compose prints one object a line; before 2.21 it printed one list.
    lines = [text] if text.startswith("[") else text.splitlines()
    parsed = [json.loads(line) for line in lines]
    rows = parsed[0] if text.startswith("[") else parsed
    logs = " ".join([*_command(home), "logs"])
    found = [
        Container(str(row["Service"]), str(row["State"]), str(row.get("Health") or ""), f"{logs} {row['Service']}")
        for row in rows
    ]
    return sorted(found, key=lambda each: each.name)


def _forget(home: Path) -> None:
    remove_endpoint(home)
    (_folder(home) / "running").unlink(missing_ok=True)


def _folder(home: Path) -> Path:
    return home / "compose"


def _settings(folder: Path) -> Mapping[str, str]:
    """Return what `.env` holds; if it is missing, make it with new passwords and a token of the admin `local`."""
    path = folder / ".env"
    if not path.exists():
        tokens = folder / "api"
        tokens.mkdir(parents=True, exist_ok=True)
        token, entry = new_token("local", "admin")
        # The API's user in the container reads the list of hashes; all else is only for the user here.
        (tokens / "tokens.yaml").write_text(line_of(entry) + "\n", encoding="utf-8")
        (tokens / "tokens.yaml").chmod(0o644)
        _write_private(folder / "token", token + "\n")
        made = {
            "COMPOSE_PROJECT_NAME": f"quatrain-{hashlib.sha256(str(folder).encode()).hexdigest()[:8]}",
            "VALKEY_PASSWORD": secrets.token_hex(24),
            "MINIO_ACCESS_KEY": "quatrain",
            "MINIO_SECRET_KEY": secrets.token_hex(24),
            "QUATRAIN_TOKENS_FOLDER": str(tokens),
            "QUATRAIN_API_PORT": str(_api_port()),
        }
        _write_private(path, "".join(f"{name}={value}\n" for name, value in made.items()))
    lines = path.read_text(encoding="utf-8").splitlines()
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def _api_port() -> int:
    """Return the usual port of the API if it is free, else another one."""
    return API_PORT if is_free(API_PORT) else free_port()


def _write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text, encoding="utf-8")


def _run(home: Path, *arguments: str) -> str:
    """Return the output of compose; its progress goes to stderr. Raises Unavailable when it fails or hangs."""
    command = [*_command(home), *arguments]
    try:
        done = subprocess.run(
            command, env=_environment(), stdout=subprocess.PIPE, text=True, check=False, timeout=MAX_SECONDS
        )
    except subprocess.TimeoutExpired:
        raise Unavailable(
            f"`compose {arguments[0]}` has not ended after {MAX_SECONDS:.0f} s; does its engine answer?"
        ) from None
    if done.returncode != 0:
        raise Unavailable(
            f"`compose {arguments[0]}` failed with exit code {done.returncode}; "
            f"`{' '.join([*_command(home), 'logs'])}` shows the containers' logs"
        )
    return done.stdout


def _command(home: Path) -> list[str]:
    tool, file = _tool(), _compose_file()
    if tool is None or file is None:
        raise InvalidInput(f"mode compose: {why_not()}")
    files = [part for each in str(file).split(os.pathsep) for part in ("--file", each)]
    return [*tool, *files, "--env-file", str(_folder(home) / ".env")]


def _environment() -> dict[str, str]:
    """Return the environment of this process with the version, and with our own Valkey image where it was built."""
    own = f"quatrain/valkey:{version('quatrain')}"
    built = {"VALKEY_IMAGE": own} if "VALKEY_IMAGE" not in os.environ and _has_image(own) else {}
    return {**os.environ, "QUATRAIN_VERSION": version("quatrain"), **built}


def _compose_file() -> str | None:
    """Return the path of compose.yaml: the one in $QUATRAIN_COMPOSE_FILE (several are joined as in PATH), else the one
    beside the `.venv` in use; None without either."""
    if os.environ.get(FILE_VARIABLE):
        return os.environ[FILE_VARIABLE]
    beside = Path(sys.prefix).parent / "compose.yaml"
    return str(beside) if Path(sys.prefix).name == ".venv" and beside.is_file() else None


def _tool() -> Sequence[str] | None:
    return next((tool for tool in TOOLS if shutil.which(tool[0]) and _succeeds(*tool, "ls")), None)


def _has_image(name: str) -> bool:
    return any(_succeeds(engine, "image", "inspect", name) for engine in ENGINES if shutil.which(engine))


def _succeeds(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=PROBE_SECONDS, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False
