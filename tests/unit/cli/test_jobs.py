import io
import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from tests.unit.client.fake_api import FakeApi, FakeJob
from tests.unit.client.folders import write_spec

from quatrain.cli.output import age

Cli = Callable[..., tuple[int, str, str]]


def start(job: FakeJob, steps: int = 3) -> FakeJob:
    job.append("state_changed", state="RUNNING", reason="")
    job.append("stage_started", stage="ppo", total_steps=steps, total_rows=8)
    return job


def finish(job: FakeJob, state: str = "SUCCEEDED") -> FakeJob:
    error = {"reason": "RUN_FAILED", "message": "the loss was not finite"} if state == "FAILED" else None
    job.append("job_finished", state=state, error=error)
    return job


def test_submit_prints_the_job_and_the_next_commands(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    code, out, err = cli("job", "submit", str(write_spec(tmp_path / "s")))

    assert code == 0
    assert out.splitlines() == ["id     small-job-1", "name   small-job", "state  VALIDATING"]
    assert "quatrain job watch small-job-1" in err


def test_submit_name_is_the_bare_id_and_json_one_object(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path / "s"))

    assert cli("job", "submit", spec, "-o", "name")[1] == "small-job-1\n"
    document = json.loads(cli("job", "submit", spec, "-o", "json", "--set", "seed=7")[1])
    assert (document["id"], document["state"], document["spec"]["seed"]) == ("small-job-2", "VALIDATING", 7)


def test_dry_run_starts_nothing_and_shows_the_resolved_spec(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path / "s"))

    code, out, err = cli("job", "submit", spec, "--dry-run", "--show-resolved", "--set", "ppo.kl.coef=0.1")

    resolved = yaml.safe_load(out)
    assert (code, api.jobs) == (0, {})
    assert resolved["ppo"]["kl"]["coef"] == 0.1
    assert resolved["ppo"]["prompts"]["uri"].startswith("sha256:")
    assert "warning: 3 rows were dropped" in err
    assert json.loads(cli("job", "submit", spec, "--dry-run", "--show-resolved", "-o", "json")[1])["seed"] == 1
    assert cli("job", "submit", spec, "--dry-run")[1] == ""


def test_a_spec_from_stdin(api: FakeApi, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = write_spec(tmp_path).read_text()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))

    assert cli("job", "submit", "-", "-o", "name")[:2] == (0, "small-job-1\n")


@pytest.mark.parametrize(("state", "code"), [("SUCCEEDED", 0), ("FAILED", 7), ("CANCELLED", 8)])
def test_submit_wait_follows_and_exits_with_the_outcome(
    api: FakeApi, cli: Cli, tmp_path: Path, state: str, code: int
) -> None:
    spec = str(write_spec(tmp_path / "s"))
    threading.Timer(0.4, lambda: finish(start(api.jobs["x"]), state)).start()

    result, out, err = cli("job", "submit", spec, "--job-id", "x", "--wait", "-o", "json")

    assert result == code
    assert json.loads(out)["state"] == state
    assert "ppo starts: 3 steps" in err
    assert state in err


@pytest.mark.parametrize(
    ("override", "field"),
    [("ppo.kl.koef=1", "ppo.kl.koef"), ("ppo.steps=many", "ppo.steps"), ("ppo.prompts=none.jsonl", "ppo.prompts")],
)
def test_a_wrong_spec_is_exit_code_3_with_the_field(
    api: FakeApi, cli: Cli, tmp_path: Path, override: str, field: str
) -> None:
    code, out, err = cli("job", "submit", str(write_spec(tmp_path)), "--set", override)

    assert (code, out, api.jobs) == (3, "", {})
    assert field in err
    assert "hint: " in err
    assert "Traceback" not in err


def test_a_spec_that_is_not_there_is_exit_code_3(api: FakeApi, cli: Cli) -> None:
    code, _, err = cli("job", "submit", "missing.yaml")

    assert code == 3
    assert "missing.yaml cannot be read" in err


def test_an_id_that_is_taken_is_exit_code_3_with_the_request_id(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    spec = str(write_spec(tmp_path))
    cli("job", "submit", spec, "--job-id", "x")

    code, _, err = cli("job", "submit", spec, "--job-id", "x")

    assert code == 3
    assert "'x' is taken" in err
    assert "request id: " in err


def test_list_shows_jobs_newest_first(api: FakeApi, cli: Cli) -> None:
    start(api.add_job("a"))
    finish(api.add_job("b"))

    assert cli("job", "list", "-o", "name")[1] == "b\na\n"
    assert cli("job", "list", "-o", "name", "--state", "running")[1] == "a\n"
    lines = cli("job", "list")[1].splitlines()
    assert [line.split() for line in lines[:3]] == [
        ["ID", "NAME", "STATE", "STAGE", "STEP", "AGE"],
        ["b", "b", "SUCCEEDED", age("2026-01-01T00:00:01Z")],
        ["a", "a", "RUNNING", "ppo", "0/3", age("2026-01-01T00:00:01Z")],
    ]
    assert "2026-01-01T00:00:01Z" in cli("job", "list", "-o", "wide")[1]
    assert [job["id"] for job in json.loads(cli("job", "list", "-o", "json")[1])] == ["b", "a"]
    assert cli("job", "list", "--state", "DONE")[0] == 3


def test_get_shows_one_job(api: FakeApi, cli: Cli) -> None:
    job = start(api.add_job("a"))
    job.append("step_completed", stage="ppo", step=1, metrics={"reward/score_mean": 0.5}, tokens=None, policy=None)

    table = cli("job", "get", "a")[1]
    document = json.loads(cli("job", "get", "a", "-o", "json")[1])

    assert "state    RUNNING" in table
    assert "reward/score_mean  0.5" in table
    assert document["metrics"] == {"reward/score_mean": 0.5}
    assert yaml.safe_load(cli("job", "get", "a", "-o", "yaml")[1]) == document
    assert cli("job", "get", "a", "-o", "name")[1] == "a\n"


def test_a_failed_job_tells_its_reason_once(api: FakeApi, cli: Cli) -> None:
    finish(start(api.add_job("bad")), "FAILED")

    code, out, err = cli("job", "get", "bad")

    assert code == 0
    assert (out + err).count("the loss was not finite") == 1


def test_get_shows_ten_metrics_and_all_on_demand(api: FakeApi, cli: Cli) -> None:
    metrics = {f"x/{i}": float(i) for i in range(40)} | {"reward/score_mean": 0.5, "kl/ref_seq": 1.0}
    start(api.add_job("a")).append("step_completed", stage="ppo", step=1, metrics=metrics, tokens=None, policy=None)

    _, out, err = cli("job", "get", "a")

    assert out.index("state") < out.index("reward/score_mean") < out.index("kl/ref_seq")
    assert "x/3" not in out
    assert "--all" in err
    assert "x/39" in cli("job", "get", "a", "--all")[1]


def test_a_dry_run_prints_nothing_like_an_id(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    assert cli("job", "submit", str(write_spec(tmp_path)), "--dry-run", "-o", "name")[:2] == (0, "")


def test_what_is_not_there_is_exit_code_4(api: FakeApi, cli: Cli) -> None:
    for verb in ("get", "watch", "wait", "metrics", "rollouts", "events", "cancel", "pause", "resume", "fork"):
        code, out, err = cli("job", verb, "nope")
        assert (code, out) == (4, ""), verb
        assert "no job 'nope'" in err
    assert cli("checkpoint", "list", "nope")[0] == 4
    assert cli("checkpoint", "download", "nope")[0] == 4


def test_no_server_is_exit_code_6(api: FakeApi, cli: Cli) -> None:
    api.stop()

    code, _, err = cli("job", "list")

    assert code == 6
    assert api.target in err
    assert "quatrain up" in err


def test_no_stack_is_exit_code_6(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("QUATRAIN_ENDPOINT", raising=False)
    monkeypatch.setenv("QUATRAIN_HOME", str(tmp_path))

    assert cli("job", "list")[0] == 6
    assert cli("status")[0] == 6
    assert cli("status", "-o", "json")[0] == 6


@pytest.mark.parametrize("arguments", [["job", "gett"], ["job", "get"], ["job", "list", "-o", "xml"], ["--nope"]])
def test_usage_errors_are_exit_code_2(cli: Cli, arguments: list[str]) -> None:
    assert cli(*arguments)[0] == 2


def test_wait_exits_with_the_outcome_or_9(api: FakeApi, cli: Cli) -> None:
    finish(api.add_job("good"))
    finish(api.add_job("bad"), "FAILED")
    finish(api.add_job("stopped"), "CANCELLED")
    start(api.add_job("long"))

    assert cli("job", "wait", "good")[:2] == (0, "SUCCEEDED\n")
    code, out, err = cli("job", "wait", "bad")
    assert (code, out) == (7, "FAILED\n")
    assert "RUN_FAILED: the loss was not finite" in err
    assert cli("job", "wait", "stopped", "-o", "name")[:2] == (8, "stopped\n")
    code, _, err = cli("job", "wait", "long", "--timeout", "0.1")
    assert code == 9
    assert "it goes on" in err


def test_debug_shows_the_traceback(api: FakeApi, cli: Cli) -> None:
    from quatrain.errors import NotFound

    with pytest.raises(NotFound):
        cli("job", "get", "nope", "--debug")
