"""The common frame of every `__main__`: configuration, logs, temporary files, the event loop, and the end."""

import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, NoReturn

from quatrain.config import ProcessConfig, load_config, temporary_folder
from quatrain.errors import InvalidInput, QuatrainError
from quatrain.process.loop_watchdog import watched_loop
from quatrain.process.scratch import own_folder
from quatrain.telemetry.logging import configure, get_logger

Main = Callable[[ProcessConfig], Coroutine[Any, Any, None]]

EXIT_FAILED = 1
EXIT_USAGE = 2


def run_process(process: str, main: Main, argv: Sequence[str] | None = None) -> NoReturn:
    """Run `main(config)` and end the process.

    Its exit code is 0, 1 (failed, logged) or 2 (wrong configuration, reported on stderr before there is a log).

    All temporary files of the process lie in one folder, which the next process deletes if this one is killed.
    """
    try:
        loaded = load_config(process, sys.argv[1:] if argv is None else argv)
        temporary = temporary_folder()
    except InvalidInput as error:
        print(error.message, file=sys.stderr)
        _end(EXIT_USAGE)
    telemetry = loaded.config.telemetry
    configure(telemetry.level, telemetry.format, process=process)
    with own_folder(temporary) as folder:
        tempfile.tempdir = str(folder)
        # Never closed: that would wait for threads whose results nobody needs any more, such as an upload of hours.
        runner = asyncio.Runner()
        code = _run(runner, main(loaded.config))
    _end(code)


def _run(runner: asyncio.Runner, main: Coroutine[Any, Any, None]) -> int:
    try:
        runner.run(_watched(main))
    except QuatrainError as error:
        get_logger(__name__).error(error.message, reason=error.code_reason)
        return EXIT_USAGE if isinstance(error, InvalidInput) else EXIT_FAILED
    except KeyboardInterrupt:
        return EXIT_FAILED
    return 0


async def _watched(main: Coroutine[Any, Any, None]) -> None:
    # The objects that exist now live to the end: half a million, which no collection needs to visit.
    gc.collect()
    gc.freeze()
    with watched_loop():
        await main


def _end(code: int) -> NoReturn:
    """End at once: shutting down an interpreter with torch costs seconds, and a model thread may still compute."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
