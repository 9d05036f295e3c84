"""Structured logs on stderr: for people (`console`) or for a log store (`json`).

Libraries that use the standard `logging` module come out in the same form. Values bound with `bound(job=..., step=...)`
are part of every line of the same task, so a job's lines can be found across processes.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

SECRET_KEYS = frozenset({"authorization", "password", "secret", "secret_key", "access_key", "token"})


def _mask_secrets(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    for key in SECRET_KEYS & event.keys():
        event[key] = "********"
    return event


_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
    _mask_secrets,
]


def configure(level: str = "info", format: str = "console", *, process: str = "") -> None:
    """Set logging up for this process; called once, by its `__main__`. `format` is `console` or `json`."""
    rendering: list[Processor] = [structlog.stdlib.ProcessorFormatter.remove_processors_meta]
    if format == "json":
        rendering += [structlog.processors.format_exc_info, structlog.processors.JSONRenderer(default=str)]
    else:
        rendering += [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(structlog.stdlib.ProcessorFormatter(foreign_pre_chain=_SHARED, processors=rendering))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _configure_structlog()
    structlog.contextvars.clear_contextvars()
    if process:
        structlog.contextvars.bind_contextvars(process=process)


def _configure_structlog() -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_SHARED,
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )


def get_logger(name: str, **bound_values: object) -> structlog.stdlib.BoundLogger:
    """Return a logger with values bound to every line. Before `configure`, warnings and worse go to stderr."""
    if not structlog.is_configured():
        _configure_structlog()
    logger: structlog.stdlib.BoundLogger = structlog.stdlib.get_logger(name, **bound_values)
    return logger


def bind(**values: object) -> None:
    """Bind values to every line that the current task logs from here on."""
    structlog.contextvars.bind_contextvars(**values)


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """Bind values (job, stage, step, attempt, request_id) to every line that the current task logs inside.

    Do not use it around a `yield` of an async generator, which may be closed from another task: use `bind` there.
    """
    with structlog.contextvars.bound_contextvars(**values):
        yield


def bound_value(name: str) -> str | None:
    """Return a value that `bound` holds for the current task, for example `request_id`."""
    value = structlog.contextvars.get_contextvars().get(name)
    return None if value is None else str(value)
