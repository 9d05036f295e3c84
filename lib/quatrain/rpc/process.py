"""What every `__main__` does: configuration, logs, the event loop, exit codes."""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from quatrain.config import ProcessConfig, load_config
from quatrain.errors import InvalidInput, QuatrainError
from quatrain.telemetry.logging import configure, get_logger

Main = Callable[[ProcessConfig], Coroutine[Any, Any, None]]

EXIT_FAILED = 1
EXIT_USAGE = 2


def run_process(process: str, main: Main, argv: Sequence[str] | None = None) -> int:
    """Runs `main(config)` to its end; the exit code is 0, 1 (failed, logged) or 2 (wrong configuration)."""
    try:
        loaded = load_config(process, sys.argv[1:] if argv is None else argv)
    except InvalidInput as error:
        print(error.message, file=sys.stderr)
        return EXIT_USAGE
    telemetry = loaded.config.telemetry
    configure(telemetry.level, telemetry.format, process=process)
    try:
        asyncio.run(main(loaded.config))
    except QuatrainError as error:
        get_logger(__name__).error(error.message, reason=error.code_reason)
        return EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    return 0
