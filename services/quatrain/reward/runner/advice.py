"""What the sandbox has to do with an exception of a reward function, and what opens or replaces what it refuses.

The sandbox refuses with the system's own errors, which look like those of a machine that is set up wrongly.
"""

import errno
import os
import socket
import traceback
from collections.abc import Iterator

from quatrain.reward.runner.confinement import MAX_THREADS, Confinement

MIB = 2**20
PROCESS_CALLS = ("fork_exec", "_fork_exec", "fork", "posix_spawn", "_execute_child", "_posix_spawn", "execve", "system")
SERVICE_INSTEAD = "or let `reward.service` name a service of your own, which may do anything"


def advice(error: BaseException, confinement: Confinement | None, *, uploaded: bool) -> str:
    """Return why it failed and the way out, where the sandbox or the lone file is the reason; else an empty text.

    `confinement` is None for installed functions, which no sandbox confines.
    """
    for each in _chain(error):
        found = _missing_import(each, uploaded=uploaded)
        if not found and confinement is not None:
            found = _limit(each, confinement) or _refused(each, confinement) or _absent(each)
        if found:
            return found
    return ""


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and those that it came from, also where a library hides one in `reason` or `args`."""
    waiting: list[object] = [error]
    seen: set[int] = set()
    while waiting:
        each = waiting.pop(0)
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        yield each
        grouped = each.exceptions if isinstance(each, BaseExceptionGroup) else ()
        waiting += [each.__cause__, each.__context__, getattr(each, "reason", None), *each.args, *grouped]


def _missing_import(error: BaseException, *, uploaded: bool) -> str:
    if not isinstance(error, ImportError):
        return ""
    if "relative import" in str(error):
        return (
            "a relative import needs a package around the file: upload the folder above it, "
            "`path: ABOVE/:FOLDER.module:function`"
        )
    if not isinstance(error, ModuleNotFoundError):
        return ""
    installed = "the reward service imports what is installed beside it; the operator can install a package there"
    if not uploaded:
        return installed
    return (
        f"{installed}. If {error.name} is a file of yours: one file is uploaded alone; give the folder of both, "
        f"`path: FOLDER/:module:function`"
    )


def _limit(error: BaseException, confinement: Confinement) -> str:
    code = error.errno if isinstance(error, OSError) else None
    memory = f"{confinement.memory_bytes // MIB} MiB"
    if isinstance(error, MemoryError) or code == errno.ENOMEM:
        return (
            f"the sandbox of uploaded code has {memory} of memory: keep less at a time, ask the operator to raise "
            f"reward.code_memory_bytes, {SERVICE_INSTEAD}"
        )
    if isinstance(error, RuntimeError) and "start new thread" in str(error):
        return f"the sandbox of uploaded code has at most {MAX_THREADS} threads and {memory} of memory: start fewer"
    if code == errno.EFBIG:
        return (
            f"the sandbox of uploaded code writes files of at most {confinement.file_bytes // MIB} MiB: write less, or "
            "keep values with log_extra"
        )
    if code in (errno.EMFILE, errno.ENFILE):
        return f"the sandbox of uploaded code opens at most {confinement.open_files} files at once: close some"
    return ""


def _refused(error: BaseException, confinement: Confinement) -> str:
    names, files = _calls(error)
    resolving = isinstance(error, socket.gaierror) and not confinement.network
    if not resolving and not isinstance(error, PermissionError):
        return ""
    if any(name in PROCESS_CALLS for name in names) or _is_fork(error):
        return (
            "the sandbox of uploaded code starts no process: compute in Python or in threads, ask the operator to "
            f"install the function (`path: module:function`), {SERVICE_INSTEAD}"
        )
    if resolving or (not confinement.network and "socket.py" in files):
        return (
            "the sandbox of uploaded code has no network: an operator opens it with reward.code_network=allow; a judge"
            " over the network is better a service of its own, named by `reward.service`"
        )
    filename = getattr(error, "filename", None)
    if filename is not None and getattr(error, "errno", None) == errno.EACCES:
        return (
            f"the sandbox of uploaded code has its own files and installed packages only, not {os.fspath(filename)!r}: "
            "upload the file in the function's folder, `path: FOLDER/:module:function`, or give the values as a column"
        )
    return (
        "the sandbox of uploaded code refuses processes, sockets, signals and files elsewhere: ask the operator to "
        f"install the function (`path: module:function`), {SERVICE_INSTEAD}"
    )


def _absent(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return (
            "the function runs on the server, and only what was uploaded is there: upload the folder with the file, "
            "`path: FOLDER/:module:function`, or give the values as a column"
        )
    if isinstance(error, KeyError) and any(file in ("os.py", "<frozen os>") for file in _calls(error)[1]):
        return (
            "the sandbox of uploaded code has no variables of your shell or of the service: give the value as `args` of"
            " the function; no secret belongs there"
        )
    return ""


def _calls(error: BaseException) -> tuple[list[str], list[str]]:
    """Return the names of the functions on the way to the error, and their files, the innermost last."""
    frames = traceback.extract_tb(error.__traceback__)
    return [frame.name for frame in frames], [os.path.basename(frame.filename) for frame in frames]


def _is_fork(error: BaseException) -> bool:
    """Return whether the innermost line calls fork: a function of C has no frame of its own."""
    frames = traceback.extract_tb(error.__traceback__)
    line = (frames[-1].line or "") if frames else ""
    return any(call in line for call in ("os.fork", "os.posix_spawn", "os.exec", "os.system", "os.popen", "fork_exec"))
