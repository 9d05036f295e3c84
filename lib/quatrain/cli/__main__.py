"""`quatrain ...`, or `python -m quatrain.cli ...`."""

import io
import os
import sys
from types import TracebackType

from quatrain.cli.app import app
from quatrain.cli.failures import UNEXPECTED, exit_code, explain, explain_disk, explain_unexpected
from quatrain.cli.output import writes_unicode
from quatrain.errors import QuatrainError


def run(arguments: list[str]) -> int:
    """Run one command and return its exit code. Errors are printed to stderr; with `--debug` they are raised."""
    debug = "--debug" in arguments
    try:
        app([each for each in arguments if each != "--debug"], prog_name="quatrain")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else UNEXPECTED
    except KeyboardInterrupt:
        return 130
    except QuatrainError as error:
        if debug:
            raise
        explain(error, arguments)
        return exit_code(error)
    except BrokenPipeError:
        return UNEXPECTED
    except OSError as error:
        if debug or not explain_disk(error):
            raise
        return UNEXPECTED
    finally:
        if not debug:
            # Unexpected errors end in the interpreter's hook: no handler here catches them all.
            sys.excepthook = _unexpected
    return 0


def main() -> None:
    """Run the console script."""
    prepare()
    code = run(sys.argv[1:])
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read the output has had enough of it.
        _silence()
    except OSError as error:
        _silence()
        explain_disk(error)
        code = code or UNEXPECTED
    sys.exit(code)


def prepare() -> None:
    """Make output streams replace what their encoding does not have: a command must not end in the middle of a table.

    In UTF-8 only half surrogate pairs are missing, and their escapes are those of JSON.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if writes_unicode(stream) else "replace")


def _silence() -> None:
    """Point the output to nowhere, so that the interpreter's own flush at its end does not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    explain_unexpected(error)


if __name__ == "__main__":
    main()
