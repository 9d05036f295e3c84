"""A learner of two processes: the numbers of one, the same bits every time, and an end where a rank is lost."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.integration.learner.calls import put_model, refusal, run
from tests.integration.learner.ranked import (
    RANK_TIMEOUT,
    Metrics,
    RankedLearner,
    Weights,
    await_running,
    checkpoint_folder,
    message_of,
    put,
    ranked_learner,
    step_request,
    train,
    train_alone,
)
from tests.unit.learner.stages import pair_table, ppo_settings, sealed, sft_table, stage_request

from quatrain.digests import canonical_json
from quatrain.errors import Fenced
from quatrain.learner.backends import Inputs, Trainer
from quatrain.learner.backends.torch_backend import TorchBackend
from quatrain.learner.requests import OpenRequest, Token
from quatrain.refs import ModelRef, ObjectRef
from quatrain.rpc.health import check_health
from quatrain.rpc.streams import result_of
from quatrain.stages import PPO, REWARD, SFT, STAGES, Stage
from quatrain.storage import ObjectStore
from quatrain.storage.folders import upload_folder
from quatrain.storage.local import LocalStore
from quatrain.v1 import learner_pb2

STEPS = 3
ROWS = {"data": "sha256:0", "batch_size": 4, "epochs": 2, "learning_rate": 1e-3, "microbatch_tokens": 30}
PPO_SETTINGS = ppo_settings(kl={"controller": "adaptive", "target": 1.0, "horizon": 50.0}, optimizer={"minibatches": 2})
LONG = canonical_json(ppo_settings(optimizer={"epochs": 200, "minibatches": 4})).decode()
LOST_SECONDS = 60.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ranks")


@pytest.fixture(scope="module")
def learner(folder: Path) -> Iterator[RankedLearner]:
    with ranked_learner(folder) as running:
        yield running


@pytest.fixture
def store(folder: Path) -> ObjectStore:
    return LocalStore(folder / "store")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def request_of(stage: Stage, store: ObjectStore, folder: Path, job: str) -> OpenRequest:
    model = put_model(store, folder / "model")
    data = put(store, f"data/{stage}", sft_table() if stage is SFT else pair_table())
    return stage_request(
        stage,
        PPO_SETTINGS if stage is PPO else ROWS,
        token=Token(job, 1, 1),
        model=ModelRef(model.uri, model.digest),
        total_steps=STEPS,
        data=None if stage is PPO else data,
        held_out=put(store, "data/held-out", pair_table(5, seed=9)) if stage is REWARD else None,
        temperature=0.7,
    )


def batches_of(stage: Stage, count: int = STEPS) -> list[bytes | None]:
    return [sealed(step) if stage is PPO else None for step in range(1, count + 1)]


def alone(request: OpenRequest, store: ObjectStore, folder: Path) -> Trainer:
    """One rank, in this process."""

    def read(source: ObjectRef | None) -> bytes | None:
        return None if source is None else store.get(source.key)

    inputs = Inputs(folder / "model", data=read(request.data), held_out=read(request.held_out))
    return TorchBackend("cpu", 1).open(request, inputs)


def assert_close(ours: list[Metrics], theirs: list[Metrics]) -> None:
    for own, other in zip(ours, theirs, strict=True):
        assert own.keys() == other.keys()
        for name, value in other.items():
            assert own[name] == (None if value is None else pytest.approx(value, rel=1e-4, abs=1e-5)), name


def assert_same(ours: Weights, theirs: Weights, *, tolerance: float = 0.0) -> None:
    assert ours.keys() == theirs.keys()
    for name, tensor in theirs.items():
        torch.testing.assert_close(ours[name], tensor, rtol=tolerance, atol=tolerance, msg=name)


def test_both_ranks_are_healthy_and_only_rank_0_serves(learner: RankedLearner) -> None:
    for rank in (0, 1):
        check_health(f"127.0.0.1:{learner.ports(rank)['health_port']}")
    check_health(f"127.0.0.1:{learner.ports(0)['health_port']}", "quatrain.v1.LearnerService")
    with pytest.raises(Exception, match="NOT_FOUND"):
        check_health(f"127.0.0.1:{learner.ports(1)['health_port']}", "quatrain.v1.LearnerService")


@pytest.mark.parametrize("stage", STAGES, ids=str)
def test_two_ranks_train_as_one_does_and_always_to_the_same_bits(
    learner: RankedLearner, store: ObjectStore, folder: Path, stage: Stage
) -> None:
    async def act() -> None:
        request = request_of(stage, store, folder, f"{stage}-1")
        metrics, weights, _ = await train(learner, store, request, batches_of(stage))
        again = await train(learner, store, replace(request, token=Token(f"{stage}-2", 1, 1)), batches_of(stage))

        expected = train_alone(alone(request, store, folder), batches_of(stage), folder / f"alone-{stage}")
        assert_close(metrics, expected[0])
        assert_same(weights, expected[1], tolerance=1e-5)
        assert again[0] == metrics
        assert_same(again[1], weights)

    run(act)


def test_a_checkpoint_does_not_tell_how_many_ranks_made_it(
    learner: RankedLearner, store: ObjectStore, folder: Path
) -> None:
    async def act() -> None:
        request = request_of(PPO, store, folder, "changed")
        _, _, by_two = await train(learner, store, request, batches_of(PPO, 1))
        one = alone(request, store, folder)
        train_alone(one, batches_of(PPO, 1), folder / "by-one")
        digest = upload_folder(store, "by-one", folder / "by-one")
        by_one = ObjectRef("by-one/manifest.json", digest)

        loaded = alone(request, store, folder)
        loaded.load(checkpoint_folder(store, folder, by_two))
        two = replace(request, token=Token("changed", 1, 2), checkpoint=by_one)
        metrics, weights, _ = await train(learner, store, two, [sealed(2)], first=2)
        second: list[bytes | None] = [sealed(2)]
        expected = train_alone(one, second, folder / "unbroken")
        after_two = train_alone(loaded, second, folder / "after-two")

        assert loaded.step == 2
        assert_close(metrics, expected[0])
        assert_same(weights, expected[1], tolerance=1e-5)
        assert_same(after_two[1], expected[1], tolerance=1e-5)

    run(act)


def test_a_fenced_step_leaves_both_ranks_for_the_next_session(
    learner: RankedLearner, store: ObjectStore, folder: Path
) -> None:
    async def act() -> None:
        request = request_of(PPO, store, folder, "fenced")
        newer = replace(request, token=Token("fenced", 2, 1))
        async with learner.stub() as stub:
            await stub.Open(message_of(replace(request, config_json=LONG)), timeout=60)
            step = asyncio.ensure_future(result_of(stub.Step(step_request(store, request, 1, sealed(1, rows=60)))))
            await await_running(stub)
            await stub.Open(message_of(newer), timeout=60)
            assert isinstance(await refusal(step), Fenced)
        metrics, _, _ = await train(learner, store, newer, batches_of(PPO, 1))

        expected = train_alone(alone(request, store, folder), batches_of(PPO, 1), folder / "unfenced")
        assert_close(metrics, expected[0])

    run(act)


def test_an_error_of_one_rank_is_the_error_of_the_call(
    learner: RankedLearner, store: ObjectStore, folder: Path
) -> None:
    async def act() -> None:
        request = replace(
            request_of(SFT, store, folder, "broken"), config_json=canonical_json({**ROWS, "batch_size": 0}).decode()
        )
        async with learner.stub() as stub:
            error = await refusal(stub.Open(message_of(request), timeout=60))
        assert "batch_size" in error.message

    run(act)


@pytest.mark.slow
def test_torchrun_says_the_ranks_their_places(tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    request = request_of(SFT, store, tmp_path, "launched")
    learner = RankedLearner(tmp_path)

    async def act() -> None:
        metrics, weights, _ = await train(learner, store, request, batches_of(SFT))
        async with learner.stub() as stub:
            status = await stub.GetStatus(learner_pb2.GetStatusRequest(), timeout=10)
        expected = train_alone(alone(request, store, tmp_path), batches_of(SFT), tmp_path / "alone")
        assert status.device.startswith("2 ranks")
        assert_close(metrics, expected[0])
        assert_same(weights, expected[1], tolerance=1e-5)

    try:
        learner.start_by_torchrun()
        run(act)
    finally:
        learner.stop()


def test_a_killed_rank_ends_the_other_in_mid_step(learner: RankedLearner, store: ObjectStore, folder: Path) -> None:
    async def act() -> None:
        request = request_of(PPO, store, folder, "killed")
        async with learner.stub() as stub:
            await stub.Open(message_of(replace(request, config_json=LONG)), timeout=60)
            step = asyncio.ensure_future(result_of(stub.Step(step_request(store, request, 1, sealed(1, rows=60)))))
            await await_running(stub)
            learner.kill(1)
            code = await asyncio.to_thread(learner.processes[0].wait, RANK_TIMEOUT + LOST_SECONDS)
            await refusal(step)
        assert code == 1, learner.logs()
        assert "the group is started again" in learner.logs()

    run(act)
