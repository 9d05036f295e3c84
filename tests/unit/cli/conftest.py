import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi

from quatrain.cli.__main__ import run

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[FakeApi]:
    monkeypatch.setenv("QUATRAIN_HOME", str(tmp_path / "home"))
    with FakeApi() as running:
        monkeypatch.setenv("QUATRAIN_ENDPOINT", running.target)
        yield running


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs one command in this process: (exit code, stdout, stderr)."""
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("COLUMNS", "200")

    def call(*arguments: str) -> tuple[int, str, str]:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call
