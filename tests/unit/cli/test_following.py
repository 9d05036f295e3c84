import json
import os
import pty
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest
from rich.console import Console
from tests.unit.client.fake_api import FakeApi, FakeJob

from quatrain.cli.panel import panel
from quatrain.cli.progress import Progress, duration
from quatrain.client import Event, Job, JobFailure, Update
from quatrain.client.resources import rollout_from
from quatrain.v1 import job_pb2

Cli = Callable[..., tuple[int, str, str]]
METRICS = {
    "reward/score_mean": 0.5,
    "kl/ref_seq": 0.01,
    "policy/entropy": 2.0,
    "policy/clip_fraction": 0.125,
    "completions/length_mean": 20.0,
}


def steps(job: FakeJob, count: int) -> FakeJob:
    job.append("state_changed", state="RUNNING", reason="")
    job.append("stage_started", stage="ppo", total_steps=count, total_rows=8)
    for step in range(1, count + 1):
        job.append("step_completed", stage="ppo", step=step, metrics=METRICS, tokens=None, policy=None)
    return job


def test_watch_into_a_pipe_is_one_line_a_step(api: FakeApi, cli: Cli) -> None:
    job = api.add_job("a")
    job.append("state_changed", state="QUEUED", reason="")
    api.faults.watch_after = [3, 1]  # the line breaks twice meanwhile

    def go_on() -> None:
        time.sleep(0.3)
        steps(job, 2)
        job.append("job_finished", state="SUCCEEDED", error=None)

    thread = threading.Thread(target=go_on)
    thread.start()
    code, out, _ = cli("job", "watch", "a")
    thread.join()

    assert code == 0
    assert out.splitlines() == [
        "QUEUED",
        "RUNNING",
        "ppo starts: 2 steps",
        "ppo step 1/2  score 0.5  KL 0.01  entropy 2  clip fraction 0.125  length 20",
        "ppo step 2/2  score 0.5  KL 0.01  entropy 2  clip fraction 0.125  length 20",
        "SUCCEEDED  ppo step 2/2",
    ]


def test_watch_json_is_one_object_a_line_and_ends_with_the_terminal_event(api: FakeApi, cli: Cli) -> None:
    job = api.add_job("a")
    job.append("state_changed", state="QUEUED", reason="")

    def go_on() -> None:
        steps(job, 1).append("job_finished", state="SUCCEEDED", error=None)

    threading.Timer(0.3, go_on).start()
    code, out, _ = cli("job", "watch", "a", "-o", "json")

    lines = [json.loads(line) for line in out.splitlines()]
    assert code == 0
    assert lines[0]["event"] is None
    assert [line["revision"] for line in lines] == [1, 2, 3, 4, 5]
    assert lines[3]["event"]["data"]["metrics"] == METRICS
    assert lines[-1]["event"]["type"] == "job_finished"
    assert lines[-1]["job"]["state"] == "SUCCEEDED"


def test_events_are_lines_an_array_or_a_stream(api: FakeApi, cli: Cli) -> None:
    job = steps(api.add_job("a"), 2)
    job.append("job_finished", state="SUCCEEDED", error=None)

    assert len(json.loads(cli("job", "events", "a", "-o", "json")[1])) == 5
    assert cli("job", "events", "a", "--after", "4", "-o", "name")[1] == "job_finished\n"
    assert "metrics={5 values}  stage=ppo  step=1" in cli("job", "events", "a")[1]
    stream = cli("job", "events", "a", "-f", "-o", "json")[1].splitlines()
    assert [json.loads(line)["revision"] for line in stream] == [1, 2, 3, 4, 5]


def read_until(terminal: int, wanted: bytes, seconds: float = 20.0) -> bytes:
    seen, deadline = b"", time.monotonic() + seconds
    while wanted not in seen:
        left = deadline - time.monotonic()
        assert left > 0, seen.decode(errors="replace")
        if select.select([terminal], [], [], left)[0]:
            seen += os.read(terminal, 65536)
    return seen


def test_ctrl_c_leaves_the_live_panel_and_the_job_goes_on(api: FakeApi) -> None:
    steps(api.add_job("a"), 3)
    api.rollouts = [job_pb2.Rollout(id="r", step=3, prompt="Where?", completion="Here.\x1b[31m", score=1.5)]
    outer, inner = pty.openpty()
    command = [sys.executable, "-m", "quatrain.cli", "job", "watch", "a"]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(command, stdin=inner, stdout=inner, stderr=inner, env=environment)
    try:
        shown = read_until(outer, b"the job goes on")
        assert b"ppo 3/3" in shown
        assert b"clip fraction" in shown
        assert "▄▄▄".encode() in shown
        assert b"Here.\\u001b[31m" in shown
        process.send_signal(signal.SIGINT)
        last = read_until(outer, b"stopped following")
        assert b"Traceback" not in last
        assert process.wait(10) == 130
    finally:
        process.kill()
        process.wait(10)
        os.close(outer)
        os.close(inner)
    assert not any(kind == "CancelJobRequest" for kind, _ in api.seen)


def job(**changes: object) -> Job:
    return Job(**{"id": "j", "name": "n", "state": "RUNNING", "stage": "ppo", "total_steps": 10, **changes})  # type: ignore[arg-type]


def step_event(step: int, **metrics: float) -> Event:
    return Event(step, "step_completed", {"stage": "ppo", "step": step, "metrics": metrics}, "t", "a")


def test_who_joins_sees_what_the_job_is_busy_with_and_what_it_waits_for() -> None:
    progress = Progress(job())
    busy = job(step=2, phase="evaluating the policy of step 2: 5 of 30", conditions={"unavailable": "the disk is full"})

    assert progress.take(Update(busy, None, 1)) == [
        "RUNNING  ppo step 2/10",
        "evaluating the policy of step 2: 5 of 30",
        "unavailable: the disk is full",
    ]


def test_the_estimate_follows_the_pace_of_the_steps() -> None:
    now = [0.0]
    progress = Progress(job(), clock=lambda: now[0], stage="ppo")

    for step in (1, 2, 3):
        now[0] = step * 60.0
        lines = progress.take(Update(job(step=step), step_event(step), step))

    assert progress.seconds_left() == 7 * 60.0
    assert lines == ["ppo step 3/10    ETA 7m00s"]


def test_a_new_stage_starts_anew() -> None:
    progress = Progress(job(stage="sft"), stage="sft")
    progress.take(Update(job(stage="sft", step=1), step_event(1, **{"sft/loss": 2.0}), 1))
    assert progress.shown() == [("loss", "sft/loss")]

    progress.take(Update(job(step=0), Event(2, "stage_started", {"stage": "ppo"}, "t", "a"), 2))

    assert (progress.rows, progress.seconds_left()) == ({}, None)
    assert progress.shown()[0] == ("score", "reward/score_mean")


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (
            Event(1, "attempt_failed", {"message": "the peer\nis gone"}, "t", "a"),
            "attempt failed: the peer is gone",
        ),
        (Event(1, "condition", {"name": "store", "message": None}, "t", "a"), "store: over"),
        (Event(1, "evaluated", {"step": 0, "metrics": {"eval/score_mean": 1.0}}, "t", "a"), "eval/score_mean 1"),
    ],
)
def test_what_matters_is_told(event: Event, line: str) -> None:
    [told] = Progress(job(), stage="ppo").take(Update(job(), event, 1))

    assert line in told


def test_what_does_not_matter_is_not_told() -> None:
    event = Event(1, "batch_sealed", {"step": 1}, "t", "a")

    assert Progress(job(), stage="ppo").take(Update(job(), event, 1)) == []


def test_the_panel_shows_hostile_text_as_text() -> None:
    failed = job(state="FAILED", error=JobFailure("RUN_FAILED", "[red]no"), conditions={"store": "away\x1b[2J"})
    progress = Progress(failed, stage="ppo")
    progress.rows = {1: {"kl/ref_seq": 0.5}}
    sample = job_pb2.Rollout(id="r", prompt="[bold]hi", completion="\x07bell", score=1.0)
    progress.completions = [rollout_from(sample)]
    console = Console(width=100, record=True, file=open(os.devnull, "w"))  # noqa: SIM115

    with console.file:
        console.print(panel(progress))
        text = console.export_text()

    for shown in ("[red]no", "[bold]hi", "\\u0007bell", "away\\u001b[2J", "FAILED", "RUN_FAILED"):
        assert shown in text


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (65, "1m05s"), (3720, "1h02m")])
def test_durations_are_short(seconds: float, text: str) -> None:
    assert duration(seconds) == text
