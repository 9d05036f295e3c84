"""The sandboxes of uploaded reward functions: each has its own folder, environment and limits."""

import asyncio
import contextlib
import ctypes
import itertools
import os
import re
import shutil
import stat
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from quatrain.reward.runner.confinement import Confinement
from quatrain.reward.runner.seccomp import PR_SET_DUMPABLE
from quatrain.telemetry.logging import get_logger

log = get_logger("reward.sandbox")

FIRST_USER, USERS = 60706, 400
"""User ids that no distribution assigns: each running function has its own."""
CAN_CHANGE_USER = 1 << 0 | 1 << 5 | 1 << 6 | 1 << 7
"""CHOWN, KILL, SETGID and SETUID: without all four capabilities a process of another user cannot be controlled."""
FILE_BYTES, FOLDER_BYTES, OPEN_FILES = 64 * 2**20, 256 * 2**20, 128
BLOCK_BYTES = 4096
KEPT_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ", "PYTHONHASHSEED")
SYSTEM_FILES = (
    *("/usr", "/lib", "/lib64", "/etc/ld.so.cache", "/etc/localtime", "/proc/cpuinfo", "/proc/meminfo"),
    *("/sys/devices/system/cpu", "/dev/zero", "/dev/random", "/dev/urandom"),
)


@dataclass(frozen=True)
class CodeLimits:
    """The operator's limits for uploaded code: bytes of address space, and whether it may open sockets."""

    memory_bytes: int = 4 * 2**30
    network: bool = False


@dataclass(frozen=True)
class Sandbox:
    """The sandbox of one running function, whose working directory is `folder`.

    `code` is its file there; None where a whole folder of code was uploaded, which lies there, too.
    """

    python: str
    folder: Path
    code: Path | None
    environment: Mapping[str, str]
    confinement: Confinement

    def overfull(self) -> bool:
        """Return whether the files exceed the limit, by size or by number."""
        used = 0
        for place, folders, files in os.walk(self.folder):
            used += BLOCK_BYTES * len(folders)
            for name in files:
                with contextlib.suppress(OSError):
                    used += max(BLOCK_BYTES, os.lstat(os.path.join(place, name)).st_blocks * 512)
                if used > FOLDER_BYTES:
                    return True
        return False

    async def close(self) -> None:
        """Remove the folder, after the process has ended."""
        await asyncio.to_thread(self._remove)

    def _remove(self) -> None:
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            return  # Closed before, or removed by the function itself.
        except (OSError, RecursionError) as error:  # without Landlock code can build deep trees
            log.warning("the folder of a reward function is left behind", folder=str(self.folder), error=str(error))


class SandboxFactory:
    """A maker of sandboxes.

    `python` is the interpreter, `import_paths` what code may import from; both are the service's own by default. Where
    the service is root and every user can read them, each sandbox has a user id of its own.
    """

    def __init__(
        self, limits: CodeLimits, *, python: str = sys.executable, import_paths: tuple[str, ...] | None = None
    ) -> None:
        self._limits = limits
        self._python = python
        self._readable = _import_paths() if import_paths is None else import_paths
        self._numbers = itertools.count()
        needed = (python, tempfile.gettempdir(), *self._readable)
        self.changes_user = _may_change_user() and all(map(open_to_others, needed))

    def create(self, files: Mapping[str, bytes], *, alone: bool) -> Sandbox:
        """Create a sandbox with the code in its folder: one file `alone`, or a folder. Raises OSError."""
        folder = Path(tempfile.mkdtemp(prefix="quatrain-code-")).resolve()
        user = FIRST_USER + next(self._numbers) % USERS if self.changes_user else None
        owned = [folder]
        for name, content in files.items():
            file = folder / name
            for parent in reversed(file.relative_to(folder).parents[:-1]):
                (folder / parent).mkdir(exist_ok=True)
            file.write_bytes(content)
            owned.append(file)
        if user is not None:
            owned += [path for path in folder.rglob("*") if path.is_dir()]
            for path in owned:
                os.chown(path, user, user)
        confinement = Confinement(
            user=user,
            memory_bytes=self._limits.memory_bytes,
            file_bytes=FILE_BYTES,
            open_files=OPEN_FILES,
            network=self._limits.network,
            readable=(*self._readable, *SYSTEM_FILES),
            writable=(str(folder), "/dev/null"),
        )
        code = folder / next(iter(files)) if alone else None
        return Sandbox(self._python, folder, code, self._environment(folder), confinement)

    def _environment(self, folder: Path) -> dict[str, str]:
        """Return harmless variables of the service and what libraries need; one thread, since memory is limited."""
        kept = {name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ}
        home = dict.fromkeys(("HOME", "TMPDIR"), str(folder)) | dict.fromkeys(("USER", "LOGNAME"), "nobody")
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        python = {"PYTHONPATH": os.pathsep.join(self._readable), "PYTHONDONTWRITEBYTECODE": "1"}
        return kept | home | threads | python | {"MALLOC_ARENA_MAX": "2"}


def make_undumpable() -> None:
    """Keep processes of the same user from reading this one's memory and environment, where the system can."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)


def open_to_others(path: str) -> bool:
    """Return whether every user can reach and read this file or folder."""
    try:
        real = Path(path).resolve()
        wanted = stat.S_IROTH | (stat.S_IXOTH if real.is_dir() else 0)
        reachable = all(parent.stat().st_mode & stat.S_IXOTH for parent in real.parents)
        return reachable and real.stat().st_mode & wanted == wanted
    except OSError:
        return False


def _may_change_user() -> bool:
    """Return whether this is root with the capabilities to start and end processes of other users."""
    if os.geteuid() != 0:
        return False
    with contextlib.suppress(OSError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return int(line.split()[1], 16) & CAN_CHANGE_USER == CAN_CHANGE_USER
    return False


def _import_paths() -> tuple[str, ...]:
    """Return the folders of the interpreter and of installed packages, without the working directory."""
    here = Path.cwd()
    places = [*sys.path, sys.prefix, sys.base_prefix]
    resolved = (Path(place).resolve() for place in places if place)
    return tuple(dict.fromkeys(str(place) for place in resolved if place.exists() and place != here))


def safe_name(name: str) -> str:
    """Return a plain name for a file of code, whatever the client called it."""
    return re.sub(r"[^\w.-]", "_", name.removesuffix(".py"))[-60:] + ".py"
