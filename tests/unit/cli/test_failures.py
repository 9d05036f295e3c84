import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi

from quatrain import errors
from quatrain.cli.failures import hint_for

COMMAND = [sys.executable, "-m", "quatrain.cli"]


def command(*arguments: str, stdout: int, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONIOENCODING": encoding, "QUATRAIN_HOME": "/nonexistent"}
    return subprocess.run(
        [*COMMAND, *arguments], stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment, timeout=60
    )


@pytest.mark.parametrize(
    ("error", "typed", "word"),
    [
        (errors.NotFound("job 'x' has no checkpoint at step 9"), ["job", "fork", "x@9"], "checkpoint list"),
        (errors.NotFound("there is no model named 'x'"), ["job", "submit"], "model list"),
        (errors.NotFound("there is no job 'x'"), ["job", "get", "x"], "job list"),
        (
            errors.InvalidData("ppo.prompts: line 3: no prompt"),
            ["job", "submit", "s.yaml", "--dry-run"],
            "data validate",
        ),
        (errors.InvalidData("x.jsonl: no rows"), ["data", "validate", "x.jsonl"], "docs/data.md"),
        (errors.InvalidData("reward.functions.0.path: /r is not a file"), ["job", "submit"], "docs/data.md"),
        (errors.Unavailable("object store: the disk is full; free space"), ["job", "submit"], "free space"),
        (errors.InvalidSpec("ppo.steps is required"), ["job", "submit", "s.yaml", "--dry-run"], "docs/spec.md"),
    ],
)
def test_a_hint_is_another_way_than_the_command(error: errors.QuatrainError, typed: list[str], word: str) -> None:
    hint = hint_for(error, typed)

    assert word in hint
    assert f"quatrain {' '.join(typed[:2])}" not in hint
    assert "quatrain up" not in hint


def test_a_full_disk_behind_the_output_is_said_once(api: FakeApi) -> None:
    api.add_job("a")
    with open("/dev/full", "wb") as full:
        done = command("job", "list", stdout=full.fileno())

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "error: the output cannot be written: No space left on device",
        "hint: free space there, or send the output somewhere else",
    ]


def test_a_reader_that_went_away_is_no_error(api: FakeApi) -> None:
    api.add_job("a")
    reading, writing = os.pipe()
    os.close(reading)

    done = command("job", "list", stdout=writing)

    os.close(writing)
    assert done.stderr == ""


@pytest.mark.parametrize(("form", "shown"), [("table", "RUN_FAILED: caf?"), ("json", "caf\\u00e9")])
def test_an_encoding_without_the_letter_is_no_error(api: FakeApi, tmp_path: Path, form: str, shown: str) -> None:
    api.add_job("a").append("job_finished", state="FAILED", error={"reason": "RUN_FAILED", "message": "café"})
    with (tmp_path / "out").open("wb") as out:
        done = command("job", "get", "a", "-o", form, stdout=out.fileno(), encoding="ascii")

    assert done.returncode == 0
    assert shown in (tmp_path / "out").read_text()
