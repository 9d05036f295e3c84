import json
from collections.abc import Callable

import pytest
from tests.unit.client.fake_api import FakeApi

from quatrain.cli.plots import plot, sparkline
from quatrain.v1 import common_pb2, job_pb2

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def job(api: FakeApi) -> None:
    job = api.add_job("a")
    for step in range(1, 4):
        metrics = {"reward/score_mean": step / 2, "kl/ref_seq": None, "other": 1.0}
        job.append("step_completed", stage="ppo", step=step, metrics=metrics, tokens=None, policy=None)
    api.rollouts = [
        job_pb2.Rollout(
            id=f"r{i}",
            step=3,
            prompt_index=i,
            status="rollout",
            prompt="Hi\nthere",
            completion=f"c{i}\x1b",
            score=i - 1.5,
            finish_reason="FINISH_REASON_LENGTH",
            terms=[common_pb2.NamedValue(name="short", value=1.0)],
            completion_ids=[1, 2],
            logprobs=[-0.5, -0.25],
        )
        for i in range(4)
    ]


def test_metrics_json_is_one_array_of_flat_rows(cli: Cli) -> None:
    rows = json.loads(cli("job", "metrics", "a", "-o", "json")[1])

    assert rows[1] == {
        "stage": "ppo",
        "step": 2,
        "attempt": 1,
        "reward/score_mean": 1.0,
        "kl/ref_seq": None,
        "other": 1.0,
    }


def test_metrics_as_a_table_names_and_a_choice(cli: Cli) -> None:
    code, out, err = cli("job", "metrics", "a")
    assert code == 0
    assert [line.split() for line in out.splitlines()[:2]] == [
        ["step", "reward/score_mean", "kl/ref_seq"],
        ["1", "0.5", "-"],
    ]
    assert "3 metrics a step" in err

    assert cli("job", "metrics", "a", "-o", "name")[1].split() == ["reward/score_mean", "kl/ref_seq", "other"]
    assert cli("job", "metrics", "a", "--names", "other")[1].splitlines()[0].split() == ["step", "other"]
    assert cli("job", "metrics", "a", "--stage", "sft", "-o", "json")[1] == "[]\n"


def test_metrics_plot(cli: Cli) -> None:
    code, out, err = cli("job", "metrics", "a", "--plot", "reward/score_mean,kl/ref_seq")

    assert code == 0
    assert "1.5 ┤  █" in out
    assert "(no values)" in out
    assert "kl/ref_seq has no value" in err


def test_rollouts_json_has_texts_ids_scores_and_terms(cli: Cli) -> None:
    rows = json.loads(cli("job", "rollouts", "a", "--step", "3", "-o", "json")[1])

    assert len(rows) == 4
    assert rows[0]["terms"] == {"short": 1.0}
    assert rows[0]["completion_ids"] == [1, 2]
    assert rows[0]["logprobs"] == [-0.5, -0.25]
    assert (rows[0]["finish_reason"], rows[0]["gold"]) == ("length", None)


def test_rollouts_worst_and_best(cli: Cli) -> None:
    assert cli("job", "rollouts", "a", "--worst", "2", "-o", "name")[1].split() == ["r0", "r1"]
    assert cli("job", "rollouts", "a", "--worst", "1", "--best", "1", "-o", "name")[1].split() == ["r0", "r3"]


def test_rollouts_show_control_characters(cli: Cli) -> None:
    out = cli("job", "rollouts", "a", "--best", "1")[1]

    assert out.splitlines() == [
        "score 1.5  step 3  prompt 3  sample 0  cut at max_new_tokens  short 1",
        "  > Hi",
        "  > there",
        "    c3\\u001b",
        "",
    ]


def test_a_sparkline_spans_the_range_and_leaves_gaps() -> None:
    assert sparkline([0.0, None, 7.0]) == "▁ █"
    assert sparkline([2.0, 2.0]) == "▄▄"
    assert sparkline([None]) == ""
    assert len(sparkline([float(i) for i in range(100)], 24)) == 24


def test_a_plot_averages_many_values_into_its_width() -> None:
    lines = plot("m", list(range(1000)), [float(i) for i in range(1000)], width=50).splitlines()

    assert lines[0] == "m"
    assert max(len(line) for line in lines) <= 70
    assert lines[-1].split() == ["0", "999", "(step)"]
