"""docs/models.md says what the stored run of all families has shown, and the stored run is of all families."""

from pathlib import Path

import pytest
from tests.families.__main__ import run_all
from tests.families.jobs import REFUSED
from tests.families.table import BEGIN, END, PAGE, read_results, table
from tests.unit.models.families import FAMILIES, REFUSED_FAMILIES

MAX_NATS = 2e-5


def test_the_page_shows_the_stored_run() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(BEGIN)[1].split(END)[0]

    assert shown.strip() == table(read_results()).strip()


def test_the_stored_run_is_of_all_families_and_sampler_and_learner_agreed() -> None:
    outcomes = read_results()

    assert [each.title for each in outcomes] == [each.title for each in (*FAMILIES, *REFUSED_FAMILIES)]
    assert max(each.mismatch for each in outcomes) < MAX_NATS
    assert [each.title for each in outcomes if each.stages == REFUSED] == [each.title for each in REFUSED_FAMILIES]


@pytest.mark.slow
@pytest.mark.e2e
@pytest.mark.timeout(1800)
def test_all_families_end_as_stored(tmp_path: Path) -> None:
    found = run_all(tmp_path)

    assert [(each.title, each.stages, each.reason) for each in found] == [
        (each.title, each.stages, each.reason) for each in read_results()
    ]
    assert max(each.mismatch for each in found) < MAX_NATS
