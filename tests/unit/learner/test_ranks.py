"""How the processes of one learner share their work, and what they send each other."""

import json
import threading
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.unit.learner.stages import stage_request
from torch import Tensor

from quatrain.config import ProcessConfig, load_config
from quatrain.config.schema import LearnerConfig
from quatrain.errors import Corrupt, Fenced, InvalidInput, OutOfMemory, QuatrainError, RunFailed
from quatrain.learner.backends.optimizer import AdamSettings, ModelOptimizer
from quatrain.learner.backends.ranks import ALONE, Ranks, balance
from quatrain.learner.backends.state import Part, fingerprint
from quatrain.learner.group.codec import (
    ERROR_BYTES,
    error_from_bytes,
    error_to_bytes,
    request_from_json,
    request_to_json,
)
from quatrain.learner.group.group import Group
from quatrain.learner.group.place import Place, place_of
from quatrain.refs import ModelRef, ObjectRef
from quatrain.stages import PPO

COSTS = st.lists(st.integers(1, 500), max_size=40)


class Paired(Ranks):
    """Two ranks as two threads of this process."""

    size = 2

    def __init__(self, rank: int, table: dict[int, list[float]], meeting: threading.Barrier) -> None:
        self.rank = rank
        self._table = table
        self._meeting = meeting

    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        self._table[self.rank] = list(values)
        self._meeting.wait(30)
        rows = [self._table[0], self._table[1]]
        self._meeting.wait(30)
        return rows

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            rows = self.all_gather(tensor.reshape(-1).tolist())
            tensor.copy_(torch.tensor(rows).sum(dim=0).view_as(tensor))


@given(COSTS, st.integers(1, 5))
def test_every_row_has_one_rank_and_the_shards_are_about_equal(costs: list[int], size: int) -> None:
    shards = balance(costs, size)

    assert sorted(place for shard in shards for place in shard) == list(range(len(costs)))
    assert all(shard == sorted(shard) for shard in shards)
    totals = [sum(costs[place] for place in shard) for shard in shards]
    assert max(totals) - min(totals) <= max(costs, default=0)


@given(COSTS)
def test_a_rank_alone_has_all_work(costs: list[int]) -> None:
    assert ALONE.shard(costs) == list(range(len(costs)))
    assert ALONE.all_gather([1.0, 2.0]) == [[1.0, 2.0]]


def test_a_rank_without_rows_takes_the_same_step() -> None:
    meeting = threading.Barrier(2)
    table: dict[int, list[float]] = {}
    models, norms = [torch.nn.Linear(3, 1) for _ in range(3)], [0.0, 0.0, 0.0]
    for model in models[1:]:
        model.load_state_dict(models[0].state_dict())

    def step(place: int, ranks: Ranks, computes: bool) -> None:
        optimizer = ModelOptimizer("policy", models[place], AdamSettings(weight_decay=0.1), ranks)
        if computes:
            models[place](torch.ones(2, 3)).sum().backward()
            optimizer.accumulate()
        norms[place] = optimizer.update(1e-2, finite=True) or 0.0

    other = threading.Thread(target=step, args=(1, Paired(1, table, meeting), False))
    other.start()
    step(0, Paired(0, table, meeting), True)
    other.join(30)
    step(2, ALONE, True)

    assert norms[0] == norms[1] == norms[2] > 0
    for name, value in models[2].state_dict().items():
        assert torch.equal(models[0].state_dict()[name], value)
        assert torch.equal(models[1].state_dict()[name], value)


def test_a_rank_that_says_nothing_is_lost_unless_this_process_stood_still(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr("quatrain.learner.group.group.time.monotonic", lambda: clock[0])
    group = Group(Place(0, 2, "127.0.0.1", 1, 900.0, silence=30.0), torch.device("cpu"))
    counts = dict.fromkeys(("heartbeat/0", "heartbeat/1"), 0)

    class Heartbeats:
        def add(self, key: str, more: int) -> int:
            counts[key] += more
            return counts[key]

    monkeypatch.setattr(group, "_heartbeat_store", Heartbeats(), raising=False)

    def pass_by(seconds: float, steps: int, *, alive: bool) -> None:
        for _ in range(steps):
            clock[0] += seconds / steps
            counts["heartbeat/1"] += alive
            group._exchange_heartbeats()

    pass_by(100.0, 20, alive=True)
    pass_by(1000.0, 1, alive=False)
    assert group._lost is None
    pass_by(25.0, 5, alive=False)
    assert group._lost is None
    pass_by(10.0, 2, alive=False)
    assert group._lost is not None
    assert "Rank 1" in group._lost.message


def test_ranks_that_drifted_apart_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    group = Group(Place(0, 2, "127.0.0.1", 1, 900.0, silence=30.0), torch.device("cpu"))
    other = [2.0**52 - 1]
    monkeypatch.setattr(group, "all_gather", lambda values: [list(values), other])

    group.compare(2**52 - 1)
    with pytest.raises(Corrupt, match="different weights"):
        group.compare(2**52 - 2)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_changed_bit_changes_the_fingerprint(dtype: torch.dtype) -> None:
    model = torch.nn.Linear(3, 2).to(dtype)
    parts = {"model": Part(model, ModelOptimizer("policy", model, AdamSettings()))}
    before = fingerprint(parts)

    with torch.no_grad():
        model.weight[1, 2].nextafter_(torch.tensor(9.0, dtype=dtype))

    assert fingerprint(parts) != before
    assert 0 <= before < 2**52


def test_a_request_survives_the_way_to_the_other_ranks() -> None:
    request = replace(
        stage_request(PPO, {"steps": 3, "optimizer": {"policy_lr": 1e-6, "betas": [0.9, 0.95]}}),
        value_model=ModelRef("store:m", "1" * 64, 4),
        checkpoint=ObjectRef("jobs/j/manifest.json", "2" * 64, 10),
        value_scale=0.1,
    )

    assert request_from_json(json.loads(json.dumps(request_to_json(request)))) == request


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (Fenced("superseded"), Fenced),
        (Corrupt("\u00e9" * 5000), Corrupt),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), OutOfMemory),
        (ValueError("a mistake"), RunFailed),
    ],
)
def test_an_error_is_sent_with_its_kind(error: Exception, kind: type[QuatrainError]) -> None:
    sent = error_to_bytes(error, 1)

    assert len(sent) == len(error_to_bytes(None, 0)) == ERROR_BYTES
    again = error_from_bytes(sent)
    assert type(again) is kind
    assert again.message.startswith("rank 1: ")
    assert error_from_bytes(error_to_bytes(None, 0)) is None


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        (["--learner.rank=2"], "count from 0"),
        (["--learner.rank=1"], "rendezvous"),
        (["--learner.rendezvous=here"], "no host:port"),
        (["--learner.rendezvous=here:1", "--learner.backend=fake"], "fake"),
    ],
)
def test_a_place_that_is_none_is_refused(given: list[str], problem: str) -> None:
    config = load_config("learner", ["--learner.ranks=2", *given], {}).config

    with pytest.raises(InvalidInput, match=problem):
        place_of(config)


def test_a_launcher_says_the_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "4", "RANK": "3", "MASTER_ADDR": "one", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)

    place = place_of(ProcessConfig(learner=LearnerConfig()))

    assert (place.rank, place.size, place.host, place.port) == (3, 4, "one", 29500)
