"""`quatrain ...`, or `python -m quatrain.cli ...`."""

import sys
from types import TracebackType

from quatrain.cli.app import app
from quatrain.cli.failures import UNEXPECTED, exit_code, explain, explain_unexpected
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
        explain(error)
        return exit_code(error)
    finally:
        if not debug:
            # Unexpected errors end in the interpreter's hook: no handler here catches them all.
            sys.excepthook = _unexpected
    return 0


def main() -> None:
    """Run the console script."""
    sys.exit(run(sys.argv[1:]))


def _unexpected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    explain_unexpected(error)


if __name__ == "__main__":
    main()
