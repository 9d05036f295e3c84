"""Errors for people, and exit codes for scripts.

0 ok, 1 unexpected, 2 usage, 3 invalid spec or data, 4 not found, 5 permission, 6 server unreachable, 7 job failed,
8 job cancelled, 9 wait timed out, 130 interrupted (the job goes on).
"""

import sys

from quatrain import errors
from quatrain.cli.output import plain
from quatrain.client import Job, WaitTimedOut
from quatrain.storage.files import disk_error

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
HINTS: tuple[tuple[type[errors.QuatrainError], str], ...] = (
    (WaitTimedOut, "wait again with `quatrain job wait ID`, or follow it with `quatrain job watch ID`"),
    (errors.InvalidSpec, "`quatrain job submit FILE --dry-run --show-resolved` checks a spec without running it"),
    (
        errors.InvalidData,
        "`quatrain data validate FILE` checks a data file, `quatrain job submit FILE --dry-run` all of it",
    ),
    (errors.NotFound, "`quatrain job list` and `quatrain model list` show what there is"),
    (errors.Unauthenticated, "set QUATRAIN_TOKEN, or --token-file, to the token that your operator gave you"),
    (errors.PermissionRefused, "your token does not allow this; ask your operator for one that does"),
    (errors.Unavailable, "`quatrain status` shows the local stack, `quatrain up` starts it; or set QUATRAIN_ENDPOINT"),
    (errors.DeadlineExpired, "the server is slow or stuck; try again, and look at its log if it stays so"),
    (errors.Overloaded, "the server is busy; try again in a moment"),
    (errors.NotBuilt, "this server's version does not have it yet; `quatrain --version` shows yours"),
)


def exit_code(error: errors.QuatrainError) -> int:
    """Return the exit code of an error."""
    return next(code for kind, code in EXIT_CODES if isinstance(error, kind))


def outcome_code(job: Job) -> int:
    """Return the exit code of a finished job."""
    return OUTCOMES.get(job.state, UNEXPECTED)


def explain(error: errors.QuatrainError) -> None:
    """Print to stderr what happened, which fields are wrong, what to do, and the request id if there was a request."""
    _line(f"error: {error.message}")
    if isinstance(error, errors.InvalidInput):
        for violation in error.violations:
            # A message often contains its only violation.
            if violation.description not in error.message:
                _line(f"  {violation.field}: {violation.description}")
    hint = next((text for kind, text in HINTS if isinstance(error, kind)), None)
    if hint is not None:
        _line(f"hint: {hint}")
    for note in getattr(error, "__notes__", []):
        _line(note)


def explain_unexpected(error: BaseException) -> None:
    """Print an error to stderr that no command expected."""
    if isinstance(error, OSError) and error.errno is not None:
        _line(f"error: {disk_error(error, str(error.filename or 'this machine')).message}")
        return
    _line(f"error: unexpected {type(error).__name__}: {error}")
    _line("hint: run the command again with --debug to see where, and report it with the output")


def _line(text: str) -> None:
    print(plain(text), file=sys.stderr)
