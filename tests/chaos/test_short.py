"""A few faults of the chaos suite for every day; `make chaos` is the rest."""

from collections.abc import Iterator

import pytest
from tests.chaos.cases import Case, case_named, case_of
from tests.chaos.deployment import Deployment, deployed
from tests.chaos.runs import run_case

# One of each: an owner, a learner in the middle of a step, a worker with a lease, and a queue that forgets everything.
EVERY_DAY = (
    "A/kill/orchestrator/owner.after_batch/2/0/ppo/fake",
    "A/kill/learner/learner.after_train/5/0/ppo/fake",
    "A/kill/rollout/rollout.before_complete/3/0/ppo/fake",
    "D/flush/redis//0/8/ppo/fake",
)


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("chaos"), "fake") as deployment:
        yield deployment


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", EVERY_DAY)
def test_nothing_is_lost(deployment: Deployment, name: str) -> None:
    run = run_case(deployment, case_named(name), f"short-{EVERY_DAY.index(name)}")

    assert run.result == "ok", "\n".join([*run.violations, deployment.stack.logs()])


def test_a_seed_always_means_the_same_case() -> None:
    cases = [case_of(seed) for seed in range(1, 401)]

    assert cases == [case_of(seed) for seed in range(1, 401)]
    assert all(case_named(case.name) == case for case in cases)
    assert {case.fault for case in cases} == set("ABCDEFGHI")


def test_case_names_carry_every_field() -> None:
    case = Case("B", "stop", "learner", at=7, variant="full", flavour="torch")

    assert case_named(case.name) == case
