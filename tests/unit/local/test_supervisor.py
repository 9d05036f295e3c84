"""What a supervisor starts, stops and starts again when other numbers of processes are wanted."""

import errno
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from quatrain.local import ports
from quatrain.local import supervisor as supervisor_module
from quatrain.local.children import Child
from quatrain.local.layout import JOB_SLOTS, ProcessPlan, StackLayout
from quatrain.local.state import read_record
from quatrain.local.supervisor import WANTED_FILE, Supervisor
from quatrain.rpc.client.targets import write_targets_file

PLAN = StackLayout.process


@pytest.fixture
def supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Supervisor]:
    """One whose processes only sleep."""

    def sleeping(layout: StackLayout, kind: str, index: int, port: int, url: str, job_slots: int = 0) -> ProcessPlan:
        plan = PLAN(layout, kind, index, port, url, job_slots)
        return replace(plan, command=(sys.executable, "-c", "import time; time.sleep(60)"))

    monkeypatch.setattr(StackLayout, "process", sleeping)
    monkeypatch.delenv(JOB_SLOTS, raising=False)
    supervisor = Supervisor(tmp_path)
    supervisor._layout.make_folders()
    yield supervisor
    want(supervisor, tmp_path)


def want(supervisor: Supervisor, home: Path, **wanted: int) -> dict[str, Child]:
    """The children after the supervisor has followed the file."""
    (home / WANTED_FILE).write_text(json.dumps(wanted), encoding="utf-8")
    supervisor._follow_wanted()
    return dict(supervisor._children)


def test_generation_gets_a_job_slot_for_each_learner_and_starts_again_only_for_more(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    first = want(supervisor, tmp_path, generation=1, learner=1, reward=1)
    assert first["generation-0"].plan.environment[JOB_SLOTS] == "1"

    more = want(supervisor, tmp_path, generation=1, learner=3, reward=1)
    assert more["generation-0"].plan.environment[JOB_SLOTS] == "3"
    assert not first["generation-0"].running()
    assert more["generation-0"].running()
    assert (more["learner-0"], more["reward-0"]) == (first["learner-0"], first["reward-0"])

    fewer = want(supervisor, tmp_path, generation=1, learner=1)
    assert fewer["generation-0"] is more["generation-0"]
    assert sorted(fewer) == ["generation-0", "learner-0"]


def test_job_slots_that_somebody_has_set_stay(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(JOB_SLOTS, "2")
    first = want(supervisor, tmp_path, generation=1, learner=1)
    more = want(supervisor, tmp_path, generation=1, learner=4)
    assert more["generation-0"] is first["generation-0"]
    assert more["generation-0"].plan.environment[JOB_SLOTS] == "2"


def test_a_full_disk_ends_no_stack(
    supervisor: Supervisor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tries = 0

    def full_at_first(path: Path, targets: dict[str, Sequence[str]]) -> None:
        nonlocal tries
        tries += 1
        if tries < 4:
            raise OSError(errno.ENOSPC, "No space left on device", str(path))
        write_targets_file(path, targets)
        supervisor._stopping = True

    monkeypatch.setattr(supervisor_module, "write_targets_file", full_at_first)
    monkeypatch.setattr(supervisor_module, "TICK_SECONDS", 0.01)
    monkeypatch.setattr(supervisor, "_start_redis", lambda: None)
    monkeypatch.setattr(supervisor_module, "remove_record", lambda home: None)
    (tmp_path / WANTED_FILE).write_text(json.dumps({"reward": 1}), encoding="utf-8")

    supervisor.run()

    assert tries == 4
    assert caplog.text.count("the disk is full; free space there") == 1
    record = read_record(tmp_path)
    assert record is not None
    assert [each.name for each in record.processes] == ["reward-0"]


def test_a_process_that_is_down_keeps_its_port(supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ports are handed out while nobody listens yet: two that are the same would leave one process out for good."""
    taken = supervisor._port("learner-0")
    monkeypatch.setattr(ports, "_turn", iter([taken, taken + 1, taken + 2]))
    assert supervisor._port("reward-0") != taken
    assert supervisor._port("learner-0") == taken
