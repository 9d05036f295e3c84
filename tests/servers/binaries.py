"""Where the servers' programs come from: PATH, the cache folder, or built from source as a Go module.

`python -m tests.servers.binaries [NAME ...]` gets them ahead of the tests, and buf for `make lint`. The cache folder is
$QUATRAIN_TEST_CACHE, by default ~/.cache/quatrain. QUATRAIN_TEST_REQUIRE_ALL=1 makes the optional servers (versitygw,
Redis 7.0) required.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

BUILD_DEADLINE = 1200.0


@dataclass(frozen=True)
class GoProgram:
    """A server that is built from source: its name in PATH, its module and its pinned version."""

    name: str
    module: str
    version: str

    @property
    def cached(self) -> Path:
        return cache_folder() / "bin" / f"{self.name}-{self.version}"


MINIO = GoProgram("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")
VERSITYGW = GoProgram("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0")
GRPCURL = GoProgram("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3")
BUF = GoProgram("buf", "github.com/bufbuild/buf/cmd/buf", "v1.75.0")


def require_all() -> bool:
    return os.environ.get("QUATRAIN_TEST_REQUIRE_ALL") == "1"


def cache_folder() -> Path:
    return Path(os.environ.get("QUATRAIN_TEST_CACHE") or Path.home() / ".cache" / "quatrain")


def find_program(program: GoProgram) -> Path | None:
    """The program if it is there already: pinned in the cache, in PATH, or put into the cache by hand."""
    in_path = shutil.which(program.name)
    candidates = (program.cached, in_path, cache_folder() / "bin" / program.name)
    return next((Path(candidate) for candidate in candidates if candidate and os.access(candidate, os.X_OK)), None)


def require_program(program: GoProgram) -> Path:
    """The program, built if need be. Raises RuntimeError saying how to get it."""
    return find_program(program) or _build(program)


def find_go() -> str | None:
    """The Go that is installed, or the one of the extra `dev`."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def find_redis() -> Path | None:
    """Debian's redis-server 7.0, if it is installed."""
    found = shutil.which("redis-server")
    return Path(found) if found else None


def _build(program: GoProgram) -> Path:
    go = find_go()
    source = f"{program.module}@{program.version}"
    advice = f"put {program.name} into PATH or {program.cached}, or run `go install {source}`"
    if go is None:
        raise RuntimeError(f"the tests need {program.name}, and there is no Go to build it: {advice}")
    program.cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.cached.parent) as folder:
        env = {**os.environ, "GOBIN": folder, "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
        command = [go, "install", "-ldflags=-s -w", source]
        result = subprocess.run(command, env=env, capture_output=True, text=True, timeout=BUILD_DEADLINE, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"building {source} failed, {advice}:\n{result.stderr[-2000:]}")
        (Path(folder) / program.name).rename(program.cached)
    return program.cached


if __name__ == "__main__":
    named = {program.name: program for program in (MINIO, VERSITYGW, GRPCURL, BUF)}
    for wanted in sys.argv[1:] or named:
        print(require_program(named[wanted]))
