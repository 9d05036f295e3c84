"""The checker finds nothing in good histories, decides all that can be decided, and imports nothing of ours."""

import re
from pathlib import Path

import pytest
from tests.chaos import checker
from tests.chaos.checker import INVARIANTS, Outcome, outcome
from tests.chaos.checker.__main__ import main
from tests.chaos.checker.history import read_history
from tests.chaos.checker.objects import FolderObjects
from tests.chaos.checker_tests.histories import Stories

NOT_CANCELLED = {"I11 steps", "I11 time in the log", "I11 time seen"}
NOT_PAUSED = {"I11 pause"}
NO_FORK = {"I5 fork begins", "I6 fork's checkpoint"}
NO_ARTIFACTS = {"I6 uploads", "I6 given up is gone", "I6 others untouched"}


def test_nothing_of_the_code_under_test_is_imported() -> None:
    assert checker.__file__ is not None
    for path in Path(checker.__file__).parent.glob("*.py"):
        assert not re.search(r"^\s*(from|import) quatrain", path.read_text(), re.MULTILINE), path


def test_the_plain_history_holds_and_is_decided_as_far_as_it_can_be(stories: Stories) -> None:
    verdict = stories["plain"].examine(stories["broken"])
    assert [str(violation) for violation in verdict.violations] == []
    assert set(verdict.undecided) == NOT_CANCELLED | NOT_PAUSED | NO_FORK | NO_ARTIFACTS | {"I10 says so"}
    assert verdict.open == ["I11"]


@pytest.mark.parametrize(
    ("name", "unbroken", "attempts", "epochs"),
    [
        ("broken", "plain", 3, 2),
        ("staged", "staged-plain", 3, 1),
        ("paused", "paused", 2, 2),
        ("cancelled", "cancelled", 1, 1),
        ("forked", "forked", 1, 1),
        ("released", "plain", 1, 1),
    ],
)
def test_histories_with_losses_hold(stories: Stories, name: str, unbroken: str, attempts: int, epochs: int) -> None:
    verdict = stories[name].examine(stories[unbroken])
    assert [str(violation) for violation in verdict.violations] == []
    assert not {"I1", "I2", "I3", "I4", "I5", "I6", "I7", "I10", "I12"} & set(verdict.open)
    events = read_history(FolderObjects(stories[name].store), name).events
    assert max(event.attempt for event in events) == attempts
    assert max(event.epoch for event in events) == epochs


def test_a_cancelled_job_decides_the_time_of_its_end(stories: Stories) -> None:
    verdict = stories["cancelled"].examine()
    assert set(verdict.decided) >= NOT_CANCELLED


def test_a_paused_job_decides_that_it_rested_and_what_it_kept(stories: Stories) -> None:
    verdict = stories["paused"].examine()
    assert set(verdict.decided) >= NOT_PAUSED | {"I6 retention"}
    kept = FolderObjects(stories["paused"].store).list("jobs/paused/ppo/checkpoints/")
    assert len({key.split("/")[4] for key in kept}) < 8


def test_a_fork_decides_where_it_began(stories: Stories) -> None:
    verdict = stories["forked"].examine()
    assert set(verdict.decided) >= NO_FORK | {"I6 others untouched"}
    assert read_history(FolderObjects(stories["forked"].store), "forked").first_version == 2


@pytest.mark.parametrize("name", ["released", "deleted"])
def test_what_was_given_up_is_gone_and_the_rest_is_there(stories: Stories, name: str) -> None:
    verdict = stories[name].examine()
    assert [str(violation) for violation in verdict.violations] == []
    assert set(verdict.decided) >= {"I6 given up is gone", "I6 others untouched"}


def test_without_observations_what_needs_them_is_open_and_never_passed(stories: Stories) -> None:
    story = stories["plain"]
    verdict = checker.examine(FolderObjects(story.store), story.job)
    assert verdict.open == ["I7", "I8", "I9", "I11"]
    assert set(verdict.decided).isdisjoint(verdict.undecided)


def test_an_outcome_survives_json(stories: Stories) -> None:
    found = outcome(FolderObjects(stories["staged"].store), "staged")
    assert Outcome.from_json(found.to_json()) == found
    assert set(found.weights) == {"sft", "ppo"}
    assert len(found.batches) == 4


def test_the_command_prints_every_invariant_and_its_exit_code_tells(
    stories: Stories, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--folder", str(stories["broken"].store), "--job", "broken"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[: len(INVARIANTS)]] == list(INVARIANTS)
    damaged = stories["broken"].copy(tmp_path)
    damaged.path("jobs/broken/spec.json").unlink()
    assert main(["--folder", str(damaged.store), "--job", "broken"]) == 1
    assert "I3   broken" in capsys.readouterr().out
