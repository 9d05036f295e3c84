"""Process, mount and network namespaces in which a whole node runs; nothing of it outlives the process that made it."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

START_DEADLINE = 10.0
DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
# The kubelet wants these for its machine. It finds them in files that only it sees, so the machine stays as it is.
KERNEL_SETTINGS = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


@dataclass(frozen=True)
class Enclosure:
    """The namespaces, held by their first process."""

    first_process: int

    @property
    def enter(self) -> tuple[str, ...]:
        """Goes before each command that runs inside."""
        return ("nsenter", f"--target={self.first_process}", "--net", "--mount", "--pid", "--")

    def run(self, *command: str) -> str:
        """Raises CalledProcessError when the command fails."""
        return subprocess.run([*self.enter, *command], check=True, capture_output=True, text=True, timeout=60.0).stdout


@contextmanager
def enclosed(folder: Path, nameserver: str) -> Iterator[Enclosure]:
    """Needs root. When this ends, or its process dies, the kernel ends all processes inside and drops all mounts."""
    holder = subprocess.Popen(
        [
            *(*DIE_WITH_PARENT, "unshare", "--fork", "--kill-child=KILL", "--pid", "--mount-proc"),
            *("--mount", "--net", "--", "sleep", "infinity"),
        ]
    )
    try:
        enclosure = Enclosure(_first_child(holder))
        enclosure.run("mount", "--make-rshared", "/")
        enclosure.run("ip", "link", "set", "lo", "up")
        _lay_over(
            enclosure, folder, "etc/resolv.conf", f"nameserver {nameserver}\nsearch cluster.local\noptions ndots:5\n"
        )
        for name, value in KERNEL_SETTINGS.items():
            _lay_over(enclosure, folder, f"proc/sys/{name}", f"{value}\n")
        yield enclosure
    finally:
        holder.kill()
        holder.wait()


def _lay_over(enclosure: Enclosure, folder: Path, name: str, text: str) -> None:
    """Inside, a file of the system is ours."""
    own = folder / "over" / name.replace("/", ".")
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(text)
    enclosure.run("mount", "--bind", str(own), f"/{name}")


def _first_child(holder: subprocess.Popen[bytes]) -> int:
    """The process `sleep` of `unshare`, once its namespaces are made."""
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    until = time.monotonic() + START_DEADLINE
    while time.monotonic() < until and holder.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                return int(child)
        time.sleep(0.02)
    raise RuntimeError("namespaces of its own could not be made: a node needs root and `unshare`")


def remove_groups() -> None:
    """Control groups of pods, which are all that a node leaves behind; they are empty once all processes are gone."""
    until = time.monotonic() + 20.0
    while (left := _groups()) and time.monotonic() < until:
        for folder in left:
            with suppress(OSError):
                folder.rmdir()
        time.sleep(0.1)


def _groups() -> list[Path]:
    """The deepest first."""
    roots = [*Path("/sys/fs/cgroup").glob("*/kubepods"), *Path("/sys/fs/cgroup").glob("kubepods")]
    below = [path for root in roots for path in root.rglob("*") if path.is_dir()]
    return sorted([*below, *roots], reverse=True)
