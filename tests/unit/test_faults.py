"""Fault points: nothing when off; counted and acted on, once, when on."""

import json
import re
from pathlib import Path

import pytest

from quatrain import faults
from quatrain.errors import InvalidInput, Unavailable
from quatrain.faults import POINTS, Faults

SOURCES = [Path(__file__).parents[2] / name for name in ("lib", "services", "orchestrator")]
CALL = re.compile(r'fault_point\("([^"]+)"\)')


def plan(folder: Path, **fields: object) -> None:
    (folder / "plan.json").write_text(json.dumps(fields))


def test_the_table_names_the_points_in_the_code() -> None:
    used = [
        name
        for source in SOURCES
        for path in source.rglob("*.py")
        if path.name != "faults.py"
        for name in CALL.findall(path.read_text(encoding="utf-8"))
    ]

    assert set(used) == set(POINTS)


def test_off_without_a_folder() -> None:
    switched = faults._switch({})

    assert switched is faults._nothing
    switched("no such point")


def test_hits_are_written(tmp_path: Path) -> None:
    hit = faults._switch({"QUATRAIN_FAULTS": str(tmp_path / "new"), "QUATRAIN_FAULTS_PROCESS": "learner-0"})

    hit("learner.after_train")
    hit("learner.after_train")

    lines = [line.split() for line in (tmp_path / "new" / "hits").read_text().splitlines()]
    assert [(line[0], line[2]) for line in lines] == [("learner-0", "learner.after_train")] * 2


def test_acts_at_the_planned_hit_only_and_once(tmp_path: Path) -> None:
    first, sibling = Faults(tmp_path, "rollout-0"), Faults(tmp_path, "rollout-1")
    plan(tmp_path, point="rollout.after_lease", action="fail", hit=2)

    first.hit("rollout.after_lease")
    first.hit("rollout.after_complete")
    with pytest.raises(Unavailable, match="after_lease"):
        first.hit("rollout.after_lease")
    for _ in range(3):
        first.hit("rollout.after_lease")
        sibling.hit("rollout.after_lease")

    assert not (tmp_path / "plan.json").exists()
    assert json.loads((tmp_path / "fired.json").read_text())["process"] == "rollout-0"


def test_a_new_plan_counts_anew(tmp_path: Path) -> None:
    on = Faults(tmp_path, "learner-0")
    plan(tmp_path, point="learner.after_save", action="fail", hit=3)
    on.hit("learner.after_save")
    (tmp_path / "plan.json").unlink()
    on.hit("learner.after_save")
    plan(tmp_path, point="learner.after_save", action="fail", hit=1)

    with pytest.raises(Unavailable):
        on.hit("learner.after_save")


def test_unknown_points_and_actions_are_refused(tmp_path: Path) -> None:
    on = Faults(tmp_path, "learner-0")

    with pytest.raises(InvalidInput, match=r"owner\.nowhere"):
        on.hit("owner.nowhere")
    plan(tmp_path, point="learner.after_save", action="explode")
    with pytest.raises(InvalidInput, match="explode"):
        on.hit("learner.after_save")
