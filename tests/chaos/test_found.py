"""Each bug that the chaos suite has found, as the case that found it."""

from pathlib import Path

import pytest
from tests.chaos.cases import case_named
from tests.chaos.deployment import deployed
from tests.chaos.runs import run_case

FOUND = {
    # A bit that flipped on the way made spec or event unreadable once; no orchestrator looked at the job ever again.
    "a-flipped-bit-loses-a-job": "E/flip/store//0/7/stale/s3",
    # An owner stopped right after it took the job, until another one had finished it, then opened the job in Redis
    # again: its key stayed there forever.
    "stale-owner-opens-a-finished-job": "B/stop/orchestrator/owner.after_take/1/0/ppo/fake",
    # An owner that had an event in its hand for as long as the store was away never told that it had waited.
    "a-minute-in-silence": "E/away a minute/store//0/2/stale/s3",
}


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("bug", FOUND)
def test_stays_mended(tmp_path: Path, bug: str) -> None:
    case = case_named(FOUND[bug])
    with deployed(tmp_path, case.flavour) as deployment:
        run = run_case(deployment, case, "found")

        assert run.result == "ok", "\n".join([*run.violations, deployment.stack.logs()])
