"""The folders that the calling thread, and all threads that it starts, may read or write from now on (Landlock)."""

import contextlib
import ctypes
import os
import stat
import struct
from collections.abc import Iterable

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
VERSION_FLAG, RULE_PATH_BENEATH = 1, 1

WRITE_FILE, READ_FILE, READ_FOLDER, REMOVE_FILE, MAKE_FILE = 1 << 1, 1 << 2, 1 << 3, 1 << 5, 1 << 8
OF_VERSION_1 = (1 << 13) - 1
MOVE, TRUNCATE, DEVICE_CONTROL = 1 << 13, 1 << 14, 1 << 15
OF_FILES = WRITE_FILE | READ_FILE | TRUNCATE
WRITING = OF_FILES | READ_FOLDER | REMOVE_FILE | MAKE_FILE
SCOPE_ABSTRACT_SOCKETS, SCOPE_SIGNALS = 1, 2


def restrict_files(libc: ctypes.CDLL, readable: Iterable[str], writable: Iterable[str]) -> bool:
    """Deny access to all files but these and those in these folders. Return False if the kernel cannot.

    In writable folders files can be made, but no folders, links or sockets, so that a folder stays flat. Paths that do
    not exist are skipped. Needs no_new_privs.
    """
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ctypes.c_uint(VERSION_FLAG))
    if version < 1:
        return False
    rights = OF_VERSION_1 | (MOVE if version >= 2 else 0) | (TRUNCATE if version >= 3 else 0)
    rights |= DEVICE_CONTROL if version >= 5 else 0
    scopes = SCOPE_ABSTRACT_SOCKETS | SCOPE_SIGNALS
    attributes = struct.pack("QQQ", rights, 0, scopes) if version >= 6 else struct.pack("Q", rights)
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), ctypes.c_uint(0))
    if ruleset < 0:
        return False
    try:
        for path in readable:
            _allow(libc, ruleset, path, READ_FILE | READ_FOLDER)
        for path in writable:
            _allow(libc, ruleset, path, rights & WRITING)
        return bool(libc.syscall(RESTRICT_SELF, ruleset, ctypes.c_uint(0)) == 0)
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    with contextlib.suppress(OSError):
        file = os.open(path, os.O_PATH | os.O_CLOEXEC)
        try:
            allowed = rights if stat.S_ISDIR(os.fstat(file).st_mode) else rights & OF_FILES
            libc.syscall(ADD_RULE, ruleset, RULE_PATH_BENEATH, struct.pack("=Qi", allowed, file), ctypes.c_uint(0))
        finally:
            os.close(file)
