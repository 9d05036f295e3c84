"""Policy and value model in two lanes: the same bits as one after the other, and no error lost."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.unit.learner.stages import never, ppo_trainer, sealed, weights

from quatrain.errors import Fenced
from quatrain.learner.backends.lanes import TwoLanes

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_two_lanes_of_one_thread_train_as_one_thread_does(tmp_path: Path) -> None:
    results = []
    for threads in (1, 2):
        trainer = ppo_trainer(tmp_path)
        torch.set_num_threads(threads)
        metrics = [trainer.train(step, sealed(step), never).metrics for step in (1, 2)]
        timeless = [{name: value for name, value in of.items() if "per_s" not in name} for of in metrics]
        results.append((timeless, weights(trainer, tmp_path / str(threads))))

    assert results[0][0] == results[1][0]
    different = [name for name, tensor in results[0][1].items() if not torch.equal(tensor, results[1][1][name])]
    assert [name for name in different if not name.startswith("random/")] == []


def test_lanes_run_at_the_same_time_with_half_the_threads_each() -> None:
    torch.set_num_threads(2)
    meeting = threading.Barrier(2)

    def lane() -> int:
        meeting.wait(10.0)
        return torch.get_num_threads()

    assert TwoLanes(CPU).run(lane, lane) == (1, 1)
    assert torch.get_num_threads() == 2


def test_one_thread_is_one_lane() -> None:
    torch.set_num_threads(1)
    order: list[str] = []

    TwoLanes(CPU).run(lambda: order.append("policy"), lambda: order.append("value"))

    assert order == ["policy", "value"]


def test_a_lane_without_a_neighbour_has_all_threads() -> None:
    torch.set_num_threads(2)

    assert TwoLanes(CPU, parallel=False).run(torch.get_num_threads, lambda: None) == (2, None)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_error_in_a_lane_ends_the_pair_after_both(failing: int) -> None:
    torch.set_num_threads(2)
    ended: list[int] = []

    def lane(number: int) -> None:
        ended.append(number)
        if number == failing:
            raise Fenced("superseded")

    with pytest.raises(Fenced):
        TwoLanes(CPU).run(lambda: lane(0), lambda: lane(1))
    assert sorted(ended) == [0, 1]
    assert torch.get_num_threads() == 2
