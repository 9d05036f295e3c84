"""Fixtures that every test may use: real servers, started once a session when first asked for, and waits cut short."""

from contextlib import suppress

import pytest
from tests.servers.binaries import GRPCURL, MINIO, REDIS, VERSITYGW, Program, find_program, require_program
from tests.servers.redis import redis_server, valkey_server
from tests.servers.s3 import minio_server, versitygw_server

from quatrain.storage import corrupt_reads

__all__ = ["minio_server", "redis_server", "valkey_server", "versitygw_server"]

_PROGRAMS: dict[str, Program] = {"redis": REDIS, "minio": MINIO, "versitygw": VERSITYGW, "grpcurl": GRPCURL}


def pytest_collection_finish(session: pytest.Session) -> None:
    """Gets missing servers before the first test and says so, because a build outlasts the time-out of a test."""
    if session.config.option.collectonly:
        return

    def say(text: str) -> None:
        # What is printed now would be captured: only the reporter reaches the terminal.
        reporter = session.config.pluginmanager.get_plugin("terminalreporter")
        if reporter is not None:
            reporter.ensure_newline()
            reporter.write_line(text)
            reporter.flush()

    wanted = {name for item in session.items for name in _servers_of(item)}
    for name, program in _PROGRAMS.items():
        if name in wanted and find_program(program) is None:
            with suppress(RuntimeError):  # the tests that need it try again and fail saying how to get it
                require_program(program, say)


@pytest.fixture
def quick_rereads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads what looks damaged as often as ever, but without the pauses: those have a unit test."""
    monkeypatch.setattr(corrupt_reads, "RETRY_PAUSES", tuple(0.0 for _ in corrupt_reads.RETRY_PAUSES))


def _servers_of(item: pytest.Item) -> set[str]:
    fixtures = {name.removesuffix("_server") for name in getattr(item, "fixturenames", ())}
    parameters = getattr(getattr(item, "callspec", None), "params", {}).values()
    return fixtures | {value for value in parameters if isinstance(value, str)}
