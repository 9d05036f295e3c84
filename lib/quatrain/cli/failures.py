"""Errors for people, and exit codes for scripts.

0 ok, 1 unexpected, 2 usage, 3 invalid spec or data, 4 not found, 5 permission, 6 server unreachable, 7 job failed,
8 job cancelled, 9 wait timed out, 130 interrupted (the job goes on).
"""

import errno
import sys
from collections.abc import Sequence
from pathlib import Path

from quatrain import errors
from quatrain.cli.output import plain
from quatrain.client import Job, WaitTimedOut
from quatrain.client.download_record import unusable

UNEXPECTED = 1
# The first class that fits decides.
EXIT_CODES: tuple[tuple[type[errors.QuatrainError], int], ...] = (
    (WaitTimedOut, 9),
    (errors.InvalidInput, 3),
    (errors.AlreadyExists, 3),
    (errors.NotFound, 4),
    (errors.Unauthenticated, 5),
    (errors.PermissionRefused, 5),
    (errors.Unavailable, 6),
    (errors.DeadlineExpired, 6),
    (errors.Overloaded, 6),
    (errors.QuatrainError, UNEXPECTED),
)
OUTCOMES = {"SUCCEEDED": 0, "FAILED": 7, "CANCELLED": 8}
# What to do next; texts of their own say it already where a class is not here.
HINTS: tuple[tuple[type[errors.QuatrainError], str], ...] = (
    (WaitTimedOut, "wait again with `quatrain job wait ID`, or follow it with `quatrain job watch ID`"),
    (errors.InvalidSpec, "docs/spec.md has every field with its default; `--set PATH=VALUE` changes a single one"),
    (errors.InvalidData, "docs/data.md says which files and models can be used"),
    (errors.NotFound, "`quatrain job list` shows the jobs"),
    (errors.Unauthenticated, "set QUATRAIN_TOKEN, or --token-file, to the token that your operator gave you"),
    (errors.PermissionRefused, "your token does not allow this; ask your operator for one that does"),
    (errors.Unavailable, "`quatrain status` shows the local stack, `quatrain up` starts it; or set QUATRAIN_ENDPOINT"),
    (errors.DeadlineExpired, "the server is slow or stuck; try again, and look at its log if it stays so"),
    (errors.Overloaded, "the server is busy; try again in a moment"),
    (errors.NotBuilt, "this server's version does not have it yet; `quatrain --version` shows yours"),
)
# By what the message speaks of, before the class decides; an empty text: the message itself has the way out.
HINTS_BY_WORDS: tuple[tuple[type[errors.QuatrainError], tuple[str, ...], str], ...] = (
    (
        errors.InvalidData,
        ("ppo.prompts", "ppo.eval_prompts", "sft.data", "reward.data", "rows", ".json", ".parquet", ".csv"),
        "`quatrain data validate FILE` shows what is in a data file; docs/data.md has the formats",
    ),
    (errors.NotFound, ("checkpoint", "policy", "step "), "`quatrain checkpoint list JOB` shows what a job has saved"),
    (errors.NotFound, ("model ", "models://"), "`quatrain model list` shows the named models"),
    (errors.NotFound, ("uploaded", "data/", "file "), "`quatrain data upload FILE` uploads a file and prints its uri"),
    (errors.Unavailable, ("disk is full",), "free space on the disk that is named, then run the command again"),
    (errors.Unavailable, ("no permission",), ""),
    (errors.Unavailable, ("object store", "Redis", "queue."), "your operator can see the servers' logs; jobs wait"),
    (
        errors.Unavailable,
        ("sandbox", "reward function"),
        "the rows and the reward function are at fault, not the server",
    ),
)
_DISK = "ENOSPC EDQUOT EROFS EACCES EPERM ENOTDIR EISDIR EEXIST ENOENT ENAMETOOLONG EFBIG ELOOP EIO"
DISK_ERRORS = frozenset(getattr(errno, name) for name in _DISK.split() if hasattr(errno, name))


def exit_code(error: errors.QuatrainError) -> int:
    """Return the exit code of an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def outcome_code(job: Job) -> int:
    """Return the exit code of a finished job."""
    return OUTCOMES.get(job.state, UNEXPECTED)


def explain(error: errors.QuatrainError, typed: Sequence[str] = ()) -> None:
    """Print to stderr what happened, which fields are wrong, what to do, and the request id if there was a request.

    `typed`: the words of the command, which is not advised again.
    """
    _line(f"error: {error.message}")
    if isinstance(error, errors.InvalidInput):
        for violation in error.violations:
            # A message often contains its only violation.
            if violation.description not in error.message:
                _line(f"  {violation.field}: {violation.description}")
    hint = hint_for(error, typed)
    if hint:
        _line(f"hint: {hint}")
    for note in getattr(error, "__notes__", []):
        _line(note)


def hint_for(error: errors.QuatrainError, typed: Sequence[str] = ()) -> str:
    """Return what to do next; empty where the message says it, or where the advice would be the command just typed."""
    if "`quatrain " in error.message:
        return ""
    command = " ".join(["quatrain", *[word for word in typed if not word.startswith("-")][:2]])
    fitting = [text for kind, words, text in HINTS_BY_WORDS if isinstance(error, kind) and _speaks_of(error, words)]
    fitting += [text for kind, text in HINTS if isinstance(error, kind)]
    return next((text for text in fitting if not typed or f"`{command}" not in text), "")


def _speaks_of(error: errors.QuatrainError, words: Sequence[str]) -> bool:
    return any(word in error.message for word in words)


def explain_disk(error: OSError) -> bool:
    """Print an error of a disk, a path or a pipe to stderr; False when it is another one and nothing was printed."""
    if error.errno not in DISK_ERRORS:
        return False
    if error.filename is None:
        _line(f"error: the output cannot be written: {error.strerror}")
        _line("hint: free space there, or send the output somewhere else")
    else:
        _line(f"error: {unusable(error, Path(str(error.filename))).message}")
    return True


def explain_unexpected(error: BaseException) -> None:
    """Print an error to stderr that no command expected."""
    if isinstance(error, OSError) and explain_disk(error):
        return
    _line(f"error: unexpected {type(error).__name__}: {error}")
    _line("hint: run the command again with --debug to see where, and report it with the output")


def _line(text: str) -> None:
    print(plain(text), file=sys.stderr)
