"""Drops every right that a reward function does not need, before foreign code is imported, and irrevocably."""

import ctypes
import os
import resource
import signal
import struct
import sys
from dataclasses import dataclass

from quatrain.reward.runner.frames import Message
from quatrain.reward.runner.landlock import restrict_files
from quatrain.reward.runner.seccomp import PR_SET_DUMPABLE, PR_SET_PDEATHSIG, forbid_calls

PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 24, 38
CAPABILITY_VERSION_3 = 0x20080522
CAPABILITIES = 64
MAX_THREADS = 64
"""Threads and processes of the runner's own user id. A shared user id has no limit, since other processes count too."""


class NotConfined(Exception):
    """This machine cannot confine foreign code; the message says what would help."""


@dataclass(frozen=True)
class Confinement:
    """The rights that the process keeps. `user` is the id that it changes to, None if it keeps its own."""

    user: int | None
    memory_bytes: int
    file_bytes: int
    open_files: int
    network: bool
    readable: tuple[str, ...]
    writable: tuple[str, ...]

    @classmethod
    def from_json(cls, message: Message) -> "Confinement":
        """Return the confinement that a message holds."""
        paths = {name: tuple(message[name]) for name in ("readable", "writable")}
        return cls(**{**message, **paths})


def confine(limits: Confinement) -> dict[str, bool]:
    """Confine this process and return what could be enforced, by name.

    The process must have one thread: Landlock and seccomp hold for the calling thread and those that it starts later.
    Raises NotConfined, and OSError if the user cannot be changed.
    """
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_FSIZE, limits.file_bytes)
    _limit(resource.RLIMIT_NOFILE, limits.open_files)
    if sys.platform != "linux":
        return _confine_elsewhere(limits)
    libc = ctypes.CDLL(None, use_errno=True)
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    if limits.user is not None:
        _limit(resource.RLIMIT_NPROC, MAX_THREADS)
        os.setgroups([])
        os.setresgid(limits.user, limits.user, limits.user)
        os.setresuid(limits.user, limits.user, limits.user)
    _drop_capabilities(libc)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 0, 0, 0, 0)
    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
    files = restrict_files(libc, limits.readable, limits.writable)
    calls = forbid_calls(libc, network=limits.network)
    if not calls and not limits.network:
        raise NotConfined(
            "there is no filter of system calls (seccomp) on this machine, so the network cannot be kept from it; "
            "reward.code_network=allow runs it with the network"
        )
    if not files and os.geteuid() == 0:
        raise NotConfined(
            "it would run as root with all of root's files: this kernel has no Landlock, and root here cannot change "
            "to another user, or that user cannot read the Python installation; run the service as an ordinary user"
        )
    return {"user": limits.user is not None, "files": files, "calls": calls}


def _confine_elsewhere(limits: Confinement) -> dict[str, bool]:
    """Allow, on another system than Linux, only what is safe for your own functions on your own machine."""
    if not limits.network or os.geteuid() == 0:
        raise NotConfined(
            f"{sys.platform} cannot keep foreign code from network and files, only Linux can; run your own functions "
            "here as an ordinary user with reward.code_network=allow"
        )
    return {"user": False, "files": False, "calls": False}


def _limit(kind: int, maximum: int) -> None:
    _, hard = resource.getrlimit(kind)
    limit = maximum if hard == resource.RLIM_INFINITY else min(maximum, hard)
    resource.setrlimit(kind, (limit, limit))


def _drop_capabilities(libc: ctypes.CDLL) -> None:
    """Drop all capabilities. A process without any cannot shrink the bounding set, and need not."""
    for number in range(CAPABILITIES):
        libc.prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
    libc.capset(struct.pack("Ii", CAPABILITY_VERSION_3, 0), bytes(24))
