import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version

import pytest

from quatrain import errors
from quatrain.cli.failures import exit_code, explain, explain_unexpected
from quatrain.client import WaitTimedOut
from quatrain.errors import FieldViolation

Cli = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.QuatrainError("x"), 1),
        (errors.Corrupt("x"), 1),
        (errors.WrongState("x"), 1),
        (errors.InvalidSpec("x"), 3),
        (errors.RewardFunctionError("x"), 3),
        (errors.NotFound("x"), 4),
        (errors.PermissionRefused("x"), 5),
        (errors.Unavailable("x"), 6),
        (errors.DeadlineExpired("x"), 6),
        (WaitTimedOut("x"), 9),
    ],
)
def test_every_error_has_its_exit_code(error: errors.QuatrainError, code: int) -> None:
    assert exit_code(error) == code


def test_an_error_says_what_where_how_and_its_request_id(capsys: pytest.CaptureFixture[str]) -> None:
    error = errors.InvalidSpec("2 fields are wrong", [FieldViolation("ppo.steps", "0 is below 1\x1b")])
    error.add_note("request id: abc")

    explain(error)

    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["error: 2 fields are wrong", "  ppo.steps: 0 is below 1\\u001b"]
    assert lines[2].startswith("hint: ")
    assert lines[3] == "request id: abc"


def test_what_nobody_foresaw_has_no_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    explain_unexpected(ZeroDivisionError("division by zero"))

    err = capsys.readouterr().err
    assert err.startswith("error: unexpected ZeroDivisionError: division by zero\n")
    assert "--debug" in err


@pytest.mark.parametrize(("flag", "shown"), [([], b"error: unexpected"), (["--debug"], b"Traceback")])
def test_an_unforeseen_error_is_exit_code_1(flag: list[str], shown: bytes) -> None:
    code = (
        "import sys, quatrain.cli.stack as stack\n"
        "def broken(): raise ZeroDivisionError\n"
        "stack._stack = broken\n"
        "from quatrain.cli.__main__ import main\n"
        "main()"
    )

    result = subprocess.run([sys.executable, "-c", code, "down", *flag], capture_output=True, check=False, timeout=60)

    assert result.returncode == 1
    assert shown in result.stderr
    assert (b"Traceback" in result.stderr) == bool(flag)


def test_version_and_help(cli: Cli) -> None:
    assert cli("--version")[:2] == (0, f"{version('quatrain')}\n")
    code, out, _ = cli("job", "submit", "--help")
    assert code == 0
    assert "Example: quatrain job submit" in out


def test_a_wrong_replica_is_exit_code_3(cli: Cli) -> None:
    code, _, err = cli("up", "--mode", "process", "--replicas", "generation")

    assert code == 3
    assert "NAME=N" in err


def test_the_command_line_imports_no_torch() -> None:
    code = "import quatrain.cli.__main__, sys; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
