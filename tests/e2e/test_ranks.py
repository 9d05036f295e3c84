"""A whole job with a learner of two processes, undisturbed and with one of them killed."""

from pathlib import Path

import pytest
from tests.e2e.stack import await_step, finish, running_stack
from tests.e2e.tasks import changed, count_symbol


@pytest.mark.slow
def test_a_killed_rank_changes_nothing_in_the_result(tmp_path: Path) -> None:
    spec = changed(count_symbol(tmp_path), ppo__steps=8)
    environment = {"QUATRAIN_LEARNER__RANKS": "2", "QUATRAIN_LEARNER__RANK_TIMEOUT": "30"}
    with running_stack(tmp_path / "home", environment=environment) as stack, stack.client() as client:
        undisturbed = finish(stack, client, client.submit(spec))
        disturbed = client.submit(spec)
        await_step(client, disturbed, 3)
        rank_0 = stack.processes()["learner-0"]
        killed = stack.kill("learner-0-rank-1")
        stack.await_restart(killed)
        finished = finish(stack, client, disturbed)

        assert stack.processes()["learner-0"].pid != rank_0.pid, "rank 0 went on without rank 1"
        assert finished.weights_sha256 == undisturbed.weights_sha256
