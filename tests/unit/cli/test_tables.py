import datetime

import pytest
from rich.cells import cell_len

from quatrain.cli.jobs import JOB_COLUMNS
from quatrain.cli.output import age
from quatrain.cli.tables import Column, layout, shortened

COLUMNS = [column for column in JOB_COLUMNS if not column.wide]
ROWS = [
    [
        "0123456789abcdef0123",
        "a-name-of-quite-some-length-for-a-job",
        "RUNNING",
        "reward",
        "1200/12000",
        "12d",
    ],
    ["my-job", "短い名前の仕事", "SUCCEEDED", "ppo", "4/4", "3m"],
    ["other", "x", "QUEUED", "", "", "0s"],
]


@pytest.mark.parametrize("width", [60, 80, 100, 140])
def test_a_job_is_one_line_and_no_word_is_broken(width: int) -> None:
    lines, hidden = layout(COLUMNS, ROWS, width)

    assert len(lines) == len(ROWS) + 1
    assert all(cell_len(line) <= width for line in lines)
    for line, row in zip(lines[1:], ROWS, strict=True):
        whole = {word for cell in row for word in cell.split()}
        assert all(word in whole or word.endswith("…") for word in line.split())
        assert line.split()[0] == row[0]
        assert row[2] in line
    assert hidden == (["STAGE"] if width == 60 else [])
    assert ("…" in lines[1]) == (width < 100)


def test_columns_that_have_no_room_are_named() -> None:
    lines, hidden = layout(COLUMNS, ROWS, 44)

    assert hidden == ["STAGE", "AGE", "STEP"]
    assert lines[0].split() == ["ID", "NAME", "STATE"]
    assert all(cell_len(line) <= 44 for line in lines)


def test_a_line_that_nothing_makes_fit_is_cut() -> None:
    assert layout([Column("A")], [["x" * 30]], 10)[0] == ["A", "x" * 9 + "…"]
    assert shortened("短い名前", 5) == "短い…"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5s"), (200, "3m"), (7300, "2h"), (90000, "1d"), (-3, "0s")])
def test_an_age_is_short(seconds: int, text: str) -> None:
    now = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)

    assert age((now - datetime.timedelta(seconds=seconds)).isoformat(), now) == text
