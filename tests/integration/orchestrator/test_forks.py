"""Forks: a new job goes on from a checkpoint of another one, unchanged to the same weights, changed to others."""

from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.test_api import Api, serving
from tests.integration.orchestrator.test_learner_losses import pipeline
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.batches import BatchRow, read_batch
from quatrain.errors import (
    AlreadyExists,
    FieldViolation,
    InvalidInput,
    InvalidSpec,
    NotFound,
    QuatrainError,
    WrongState,
)
from quatrain.joblog import JobView
from quatrain.v1 import job_pb2


async def fork(api: Api, step: int | None = None, request_id: str = "", **overrides: str) -> job_pb2.Job:
    request = job_pb2.ForkJobRequest(
        job_id="job-1",
        step=step,
        new_job_id="" if request_id else "fork",
        request_id=request_id,
        overrides={name.replace("__", "."): value for name, value in overrides.items()},
    )
    forked: job_pb2.Job = (await api.call("ForkJob", request)).job
    return forked


async def ended(world: World, spec: dict[str, Any]) -> JobView:
    await world.submit(spec)
    view = await world.end_of()
    assert view.state == "SUCCEEDED", view.error
    return view


def samples(world: World, view: JobView, step: int) -> list[tuple[Any, ...]]:
    rows: list[BatchRow] = read_batch(world.store.get(view.sealed[step].key))
    return [(row.prompt_index, row.seed, row.policy_digest, row.completion_ids.tolist(), row.score) for row in rows]


@pytest.mark.parametrize("kind", ["pipeline", "ppo"])
def test_an_unchanged_fork_ends_with_the_weights_of_its_source(tmp_path: Path, kind: str) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            spec = pipeline(world) if kind == "pipeline" else world.spec()
            if kind == "ppo":
                spec["reward"]["center"] = True
            spec["ppo"]["steps"] = 5
            source = await ended(world, spec)
            made = await fork(api, step=2)
            assert (made.id, made.forked_from.job_id, made.forked_from.step) == ("fork", "job-1", 2)
            for stat in world.store.list("jobs/job-1/"):  # Nothing of it is needed any more.
                world.store.delete(stat.key)
            view = await world.end_of("fork")
            assert view.state == "SUCCEEDED", view.error
            for stage, result in source.stage_results.items():
                assert view.stage_results[stage].weights_sha256 == result.weights_sha256
            assert view.offset == source.offset
            assert sorted(view.sealed) == [3, 4, 5]
            assert view.policies[2].digest == source.policies[2].digest
            assert [event.data["stage"] for event in world.events("fork", "stage_started")] == ["ppo"]
            if kind == "pipeline":
                assert sorted(view.evaluations) == [2, 4, 5]

    run(scenario)


def test_a_fork_sees_the_samples_of_its_source_and_leaves_it_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await world.submit({**world.spec(steps=6), "checkpoint": {"every_steps": 2}})
            await world.until(lambda: bool(world.view().checkpoints), "a checkpoint")
            made = await fork(api, step=2, request_id="once", ppo__kl__coef="0.5", name="other")
            again = await fork(api, step=2, request_id="once", ppo__kl__coef="0.5", name="other")
            assert (again.id, again.name) == (made.id, "other")
            with pytest.raises(AlreadyExists):
                await fork(api, step=2, request_id="once")
            source, view = await world.end_of(), await world.end_of(made.id)
            assert (source.state, view.state) == ("SUCCEEDED", "SUCCEEDED")
            assert samples(world, view, 3) == samples(world, source, 3)
            newest = await fork(api, ppo__steps="7")
            assert newest.forked_from.step == 6
            assert (await world.end_of("fork")).step == 7

    run(scenario)


def test_a_fork_with_another_reward_differs(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            source = await ended(world, pipeline(world))
            await fork(
                api,
                step=2,
                reward='{functions: [{path: "rewards:other"}], center: true}',
                ppo__prompts=put_rows(world.store, [{"prompt": "cc"}, {"prompt": "ad"}]),
                ppo__staleness="1",
                ppo__steps="5",
            )
            view = await world.end_of("fork")
            assert view.state == "SUCCEEDED", view.error
            assert view.offset is not None
            assert view.offset != source.offset
            assert set(view.stage_results) == {"sft", "ppo"}
            assert {step: ref.policy_version for step, ref in view.sealed.items()} == {3: 2, 4: 2, 5: 3}
            assert view.stage_results["ppo"].weights_sha256 != source.stage_results["ppo"].weights_sha256
            await world.submit(world.spec(), "plain")
            assert (await world.end_of("plain")).state == "SUCCEEDED"

    run(scenario)


def test_a_fork_of_a_fork_over_a_lost_learner(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            source = await ended(world, {**world.spec(steps=6), "checkpoint": {"every_steps": 2}})
            await fork(api, step=2)
            await world.end_of("fork")
            calls = world.learners[0].calls
            world.learners[0].die_at("Publish", calls["Publish"] + 1)
            world.learners[0].die_at("Step", calls["Step"] + 2)
            await api.call("ForkJob", job_pb2.ForkJobRequest(job_id="fork", step=4, new_job_id="fork-2"))
            view = await world.end_of("fork-2")
            assert (view.state, view.attempt) == ("SUCCEEDED", 3)
            weights = source.stage_results["ppo"].weights_sha256
            assert view.stage_results["ppo"].weights_sha256 == weights

    run(scenario)


def test_what_cannot_be_forked_is_refused_naming_the_fields(tmp_path: Path) -> None:
    async def refused(api: Api, step: int, **overrides: str) -> list[FieldViolation]:
        with pytest.raises(InvalidInput) as caught:
            await fork(api, step, **overrides)
        return list(caught.value.violations)

    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await world.submit(pipeline(world))
            with pytest.raises(WrongState, match="no PPO checkpoint"):
                await fork(api)
            await world.end_of()
            for overrides, field in (
                ({"model__uri": "sha256:" + "0" * 64}, "model.uri"),
                ({"sft__epochs": "2"}, "sft.epochs"),
                ({"sft": "null"}, "sft"),
                ({"seed": "5"}, "seed"),
                ({"ppo__value_init": "sft"}, "ppo.value_init"),
                ({"ppo__steps": "2"}, "ppo.steps"),
                ({"reward__epochs": "3"}, "reward.epochs"),
                ({"reward__data": "sha256:" + "0" * 64}, "reward.data.uri"),
                ({"ppo__kl": "{controller: adaptive, target: 1.0, coef: 0.3}"}, "ppo.kl.coef"),
                ({"ppo__clip__low": "2"}, "ppo.clip.low"),
                ({"ppo__klippe": "2"}, "ppo.klippe"),
                ({"ppo": "3"}, "ppo"),
                ({"ppo__prompts": "sha256:" + "0" * 64}, "ppo.prompts"),
                ({"reward": '{functions: [{path: "no.py:f"}]}'}, "reward.functions.0.path"),
            ):
                assert field in [violation.field for violation in await refused(api, 2, **overrides)], overrides
            cases: list[tuple[type[QuatrainError], dict[str, Any]]] = [
                (NotFound, {"job_id": "nobody"}),
                (NotFound, {"job_id": "job-1", "step": 1}),
                (InvalidSpec, {"job_id": "job-1", "step": 2, "new_job_id": "../x"}),
            ]
            for error, fields in cases:
                with pytest.raises(error):
                    await api.call("ForkJob", job_pb2.ForkJobRequest(**fields))
            assert [job for job in ("fork",) if world.store.list(f"jobs/{job}/")] == []

    run(scenario)


def test_a_fork_can_be_paused_before_its_first_step(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, workers=0, schedulers=0) as world, serving(world) as api:
            world.start_worker()
            world.start_scheduler()
            source = await ended(world, world.spec(steps=4))
            world.learners[0].hooks["Publish", world.learners[0].calls["Publish"] + 1] = lambda: pause(world)
            await fork(api, step=2)
            await world.until(lambda: world.view("fork").state == "PAUSED", "PAUSED")
            await world.ask("resume_requested", {}, "fork")
            view = await world.end_of("fork")
            weights = source.stage_results["ppo"].weights_sha256
            assert view.stage_results["ppo"].weights_sha256 == weights

    async def pause(world: World) -> None:
        await world.ask("pause_requested", {}, "fork")
        await world.until(lambda: world.view("fork").state == "PAUSING", "PAUSING")

    run(scenario)


def test_a_fork_that_is_asked_for_again_is_there_though_its_source_is_deleted(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world, serving(world) as api:
            await ended(world, world.spec())
            made = await fork(api, step=2, request_id="once")
            await world.end_of(made.id)
            await api.call("DeleteJob", job_pb2.DeleteJobRequest(job_id="job-1"))
            assert (await fork(api, step=2, request_id="once")).id == made.id
            with pytest.raises(NotFound, match="was deleted"):
                await fork(api, step=2, request_id="another")

    run(scenario)
