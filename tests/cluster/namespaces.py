"""Linux namespaces (process, mount, network) in which a whole node runs. They end with the process that made them."""

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
class NodeNamespaces:
    """The namespaces of one node, held by their first process."""

    first_process: int

    @property
    def enter(self) -> tuple[str, ...]:
        """Return what goes before each command that runs inside."""
        return ("nsenter", f"--target={self.first_process}", "--net", "--mount", "--pid", "--")

    def run(self, *command: str) -> str:
        """Run a command inside and return its output. Raise CalledProcessError when it fails."""
        return subprocess.run([*self.enter, *command], check=True, capture_output=True, text=True, timeout=60.0).stdout


@contextmanager
def isolated_namespaces(folder: Path, nameserver: str) -> Iterator[NodeNamespaces]:
    """Make the namespaces; needs root. At the end, or when this process dies, the kernel ends all that runs inside."""
    holder = subprocess.Popen(
        [
            *(*DIE_WITH_PARENT, "unshare", "--fork", "--kill-child=KILL", "--pid", "--mount-proc"),
            *("--mount", "--net", "--", "sleep", "infinity"),
        ]
    )
    try:
        namespaces = NodeNamespaces(_first_child(holder))
        namespaces.run("mount", "--make-rshared", "/")
        namespaces.run("ip", "link", "set", "lo", "up")
        _lay_over(
            namespaces, folder, "etc/resolv.conf", f"nameserver {nameserver}\nsearch cluster.local\noptions ndots:5\n"
        )
        for name, value in KERNEL_SETTINGS.items():
            _lay_over(namespaces, folder, f"proc/sys/{name}", f"{value}\n")
        yield namespaces
    finally:
        holder.kill()
        holder.wait()


def _lay_over(namespaces: NodeNamespaces, folder: Path, name: str, text: str) -> None:
    """Mount a file of ours over a file of the system, inside only."""
    own = folder / "over" / name.replace("/", ".")
    own.parent.mkdir(parents=True, exist_ok=True)
    own.write_text(text)
    namespaces.run("mount", "--bind", str(own), f"/{name}")


def _first_child(holder: subprocess.Popen[bytes]) -> int:
    """Return the process `sleep` of `unshare`, once its namespaces are made."""
    children = Path(f"/proc/{holder.pid}/task/{holder.pid}/children")
    until = time.monotonic() + START_DEADLINE
    while time.monotonic() < until and holder.poll() is None:
        for child in children.read_text().split():
            if Path(f"/proc/{child}/comm").read_text().strip() == "sleep":
                return int(child)
        time.sleep(0.02)
    raise RuntimeError("namespaces of its own could not be made: a node needs root and `unshare`")


def remove_groups() -> None:
    """Remove the control groups of pods, which are all that a node leaves behind, once their processes are gone."""
    until = time.monotonic() + 20.0
    while (left := _groups()) and time.monotonic() < until:
        for folder in left:
            with suppress(OSError):
                folder.rmdir()
        time.sleep(0.1)


def _groups() -> list[Path]:
    """Return the control groups of pods, the deepest first."""
    roots = [*Path("/sys/fs/cgroup").glob("*/kubepods"), *Path("/sys/fs/cgroup").glob("kubepods")]
    below = [path for root in roots for path in root.rglob("*") if path.is_dir()]
    return sorted([*below, *roots], reverse=True)
