"""A filter of system calls for the calling thread and all threads that it starts: no new process, no socket, no signal.

A refused call fails with EPERM, like one without permission, so that Python raises PermissionError. The table names the
calls that reach beyond the process; other modules limit memory, files and time.

The program is made by hand: a rule of libseccomp may compare each argument only once, which excludes "this process, or
0", and where that library is missing, uploaded code could not run at all.
"""

import ctypes
import errno
import os
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, REFUSE, NOT_THERE = 0x7FFF0000, 0x00050000 | errno.EPERM, 0x00050000 | errno.ENOSYS
LOAD, JUMP_EQUAL, JUMP_BITS, JUMP_AT_LEAST, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
CALL_NUMBER, ARCHITECTURE, FIRST_ARGUMENT = 0, 4, 16
CLONE_THREAD = 0x00010000
X32_CALLS = 0x40000000
"""The first number of the x32 calls of x86-64, which Python does not use."""
PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4

Instruction = tuple[int, int, int, int]
"""An instruction: code, jump if true, jump if false, operand."""

ARCHITECTURES = {"x86_64": (0xC000003E, 0), "aarch64": (0xC00000B7, 1)}
"""The kernel's number of the machine, and its column in the tables below, where -1 is a call that it does not have."""
FORBIDDEN: dict[str, tuple[int, int]] = {
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "kcmp": (312, 272),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "tkill": (200, 130),
    "setns": (308, 268),
    "unshare": (272, 97),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    # Memory that the limit of the address space does not count, or that outlives the process.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "semget": (64, 190),
    "mq_open": (240, 180),
    "memfd_create": (319, 279),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    "syslog": (103, 116),
    "fork": (57, -1),
    "vfork": (58, -1),
}
NETWORK = {"socket": (41, 198)}
ON_ITSELF = {
    "kill": (62, 129),
    "tgkill": (234, 131),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "prlimit64": (302, 261),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "sched_setaffinity": (203, 122),
}
"""Calls that are allowed if the first argument is this process, or 0."""
CLONE, CLONE3, PRCTL = (56, 220), (435, 435), (157, 167)


def forbid_calls(libc: ctypes.CDLL, *, network: bool) -> bool:
    """Install the filter, irrevocably. Return False if this machine or kernel has none. Needs no_new_privs."""
    if platform.machine() not in ARCHITECTURES:
        return False
    code = filter_program(platform.machine(), os.getpid(), network=network)
    program = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(code) // 8, ctypes.addressof(program))
    taken: int = libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.create_string_buffer(header, len(header)), 0, 0)
    return taken == 0


def filter_program(machine: str, own: int, *, network: bool) -> bytes:
    """Return the program for a process with the id `own`, in the kernel's format."""
    audit, column = ARCHITECTURES[machine]
    steps = [
        (LOAD, 0, 0, ARCHITECTURE),
        (JUMP_EQUAL, 1, 0, audit),
        (RETURN, 0, 0, REFUSE),
        (LOAD, 0, 0, CALL_NUMBER),
        (JUMP_AT_LEAST, 0, 1, X32_CALLS),
        (RETURN, 0, 0, REFUSE),
    ]
    forbidden = FORBIDDEN if network else FORBIDDEN | NETWORK
    for numbers in forbidden.values():
        steps += [(JUMP_EQUAL, 0, 1, numbers[column] & 0xFFFFFFFF), (RETURN, 0, 0, REFUSE)]
    for numbers in ON_ITSELF.values():
        steps += _by_argument(numbers[column], [(JUMP_EQUAL, 2, 0, own), (JUMP_EQUAL, 1, 0, 0)], otherwise=REFUSE)
    # Threads are made by clone3, whose flags a filter cannot read; libraries fall back to clone if it does not exist.
    steps += [(JUMP_EQUAL, 0, 1, CLONE3[column]), (RETURN, 0, 0, NOT_THERE)]
    steps += _by_argument(CLONE[column], [(JUMP_BITS, 1, 0, CLONE_THREAD)], otherwise=REFUSE)
    hidden = [(JUMP_EQUAL, 2, 0, PR_SET_PDEATHSIG), (JUMP_EQUAL, 1, 0, PR_SET_DUMPABLE)]
    steps += _by_argument(PRCTL[column], hidden, otherwise=ALLOW)
    steps += [(RETURN, 0, 0, ALLOW)]
    return b"".join(struct.pack("HBBI", *step) for step in steps)


def _by_argument(number: int, tests: list[Instruction], *, otherwise: int) -> list[Instruction]:
    """Return the steps for one call: a test that holds jumps over `otherwise` to its opposite."""
    opposite = ALLOW if otherwise == REFUSE else REFUSE
    inner = [(LOAD, 0, 0, FIRST_ARGUMENT), *tests, (RETURN, 0, 0, otherwise), (RETURN, 0, 0, opposite)]
    return [(JUMP_EQUAL, 0, len(inner), number), *inner]
