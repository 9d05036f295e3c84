"""Log lines for people and for log stores."""

import json
import logging
import urllib.request
from collections.abc import Iterator

import pytest
import structlog

from quatrain.telemetry.logging import bound, bound_value, configure, get_logger
from quatrain.telemetry.metrics import start_metrics_server


@pytest.fixture(autouse=True)
def _restore_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:], root.level = handlers, level
    structlog.contextvars.clear_contextvars()


def lines(capsys: pytest.CaptureFixture[str]) -> list[dict[str, object]]:
    captured = capsys.readouterr()
    assert captured.out == ""
    return [json.loads(line) for line in captured.err.splitlines()]


def test_json_lines_carry_what_is_bound(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json", process="learner")
    with bound(job="j1", step=3):
        get_logger("quatrain.x").info("step done", seconds=1.5)
        assert bound_value("job") == "j1"
    logging.getLogger("other").warning("from %s", "a library")
    get_logger("quatrain.x").debug("hidden")

    first, second = lines(capsys)
    assert {
        "event": "step done",
        "job": "j1",
        "step": 3,
        "seconds": 1.5,
        "level": "info",
        "process": "learner",
    }.items() <= first.items()
    assert second["event"] == "from a library"
    assert "job" not in second
    assert bound_value("job") is None


def test_tracebacks_and_secrets(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    try:
        raise ValueError("inner")
    except ValueError:
        get_logger("x").exception("failed", token="hush")

    (line,) = lines(capsys)
    assert "ValueError: inner" in str(line["exception"])
    assert "hush" not in json.dumps(line)


def test_console_lines_are_readable(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "console")
    get_logger("x").info("hidden")
    get_logger("x").warning("seen", job="j1")

    shown = capsys.readouterr().err
    assert "seen" in shown
    assert "job=j1" in shown
    assert "hidden" not in shown


def test_metrics_are_served() -> None:
    server = start_metrics_server("127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics", timeout=5) as answer:
            assert b"process_cpu_seconds_total" in answer.read()
    finally:
        server.close()
