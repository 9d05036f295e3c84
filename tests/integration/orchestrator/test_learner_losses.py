"""Lost learners: the next attempt opens the last checkpoint, replays sealed batches, ends the same, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt, RunFailed, Unavailable

SFT_ROWS = [{"prompt": "ab", "completion": "cd"}, {"prompt": "bc", "completion": "da"}] * 2
DIGESTS: dict[str, str] = {}


def pipeline(world: World) -> dict[str, Any]:
    """SFT, reward model and PPO; the offset is measured, evaluations are made."""
    spec = world.spec(eval_prompts=put_rows(world.store, [{"prompt": "ac"}, {"prompt": "bd"}]), eval_every=2)
    pairs = [{"prompt": "ab", "chosen": "cd", "rejected": "dc"}] * 4
    spec["sft"] = {"data": put_rows(world.store, SFT_ROWS), "batch_size": 2}
    spec["reward"] = {"data": put_rows(world.store, pairs), "batch_size": 2, "min_accuracy": 0.0}
    return spec


async def finish(world: World, spec: dict[str, Any]) -> str:
    """Runs the job; a digest of everything that must not depend on what went wrong on the way."""
    await world.submit(spec)
    view = await world.end_of()
    assert view.state == "SUCCEEDED", view.error
    batches = {step: (ref.sha256, ref.policy_version) for step, ref in sorted(view.sealed.items())}
    models = {stage: result.model.digest for stage, result in sorted(view.stage_results.items())}
    evaluations = {step: ref.sha256 for step, ref in sorted(view.evaluations.items())}
    return sha256_hex(repr((batches, models, evaluations)).encode())


def unbroken(root: Path, kind: str) -> str:
    if kind not in DIGESTS:

        async def scenario() -> None:
            async with deployment(root / "unbroken") as world:
                spec = pipeline(world) if kind == "pipeline" else world.spec()
                DIGESTS[kind] = await finish(world, spec)

        run(scenario)
    return DIGESTS[kind]


@pytest.mark.parametrize(
    ("method", "call", "when"),
    [
        ("Open", 1, "after"),
        ("Step", 1, "before"),
        ("Step", 2, "after"),
        ("Step", 3, "before"),
        ("Publish", 3, "before"),
        ("Publish", 2, "after"),
        ("Save", 1, "before"),
        ("Save", 2, "after"),
        ("Export", 1, "before"),
        ("Export", 1, "after"),
    ],
)
def test_a_lost_learner_changes_nothing_in_the_end(tmp_path: Path, method: str, call: int, when: str) -> None:
    expected = unbroken(tmp_path, "ppo")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].die_at(method, call, when)
            assert await finish(world, world.spec()) == expected
            view = world.view()
            assert view.failures == []
            failed = world.events(kind="attempt_failed")
            if method == "Open":  # Nobody had begun: another learner, or the same one, is asked again.
                assert (len(failed), view.attempt) == (0, 1)
            else:
                assert [event.data["reason"] for event in failed] == ["LEARNER_LOST"]
                assert view.attempt == 2
                opened = world.events(kind="learner_opened")
                from_step = max((c.step for c in view.checkpoints if c.revision < opened[1].revision), default=0)
                assert opened[1].data["from_step"] == from_step
            assert sorted(view.sealed) == [1, 2, 3]
            assert len(world.events(kind="batch_sealed")) == 3
            steps = world.events(kind="step_completed")
            assert len(steps) == 3
            for sealed, done in zip(world.events(kind="batch_sealed"), steps, strict=True):
                collected = sealed.data["collected"]
                assert collected["time/generate"] > 0.0
                assert {name: done.data["metrics"][name] for name in collected} == collected

    run(scenario)


@pytest.mark.parametrize(("method", "call"), [("Export", 1), ("Step", 3), ("Publish", 1), ("Export", 2), ("Export", 3)])
def test_all_stages_end_the_same_after_a_loss(tmp_path: Path, method: str, call: int) -> None:
    expected = unbroken(tmp_path, "pipeline")

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].die_at(method, call)
            assert await finish(world, pipeline(world)) == expected
            assert len(world.events(kind="offset_measured")) == 1
            assert len(world.events(kind="stage_started")) == 3
            assert len(world.events(kind="attempt_failed")) == 1

    run(scenario)


def test_used_up_retries_end_the_job_with_the_reason(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            for call in range(1, 10):
                world.learners[0].die_at("Step", call)
            await world.submit({**world.spec(), "limits": {"retries": 2}})
            view = await world.end_of()
            assert view.state == "FAILED"
            assert view.error is not None
            assert view.error.reason == "RETRIES_USED_UP"
            assert "lost at ppo step 1 (policy version 0): " in view.error.message
            assert "limits.retries is 2" in view.error.message
            assert len(world.events(kind="attempt_failed")) == 3

    run(scenario)


def test_the_retry_budget_starts_again_at_a_checkpoint(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].die_at("Step", 1)
            world.learners[0].die_at("Step", 4)  # step 3, after the checkpoint of step 2
            await world.submit({**world.spec(), "limits": {"retries": 1}})
            assert (await world.end_of()).state == "SUCCEEDED"
            assert len(world.events(kind="attempt_failed")) == 2

    run(scenario)


def test_a_learner_whose_store_is_away_is_asked_again_and_not_given_up(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].refusals = {
                method: [Unavailable("its store is away")] * 8 for method in ("Step", "Publish", "Save", "Export")
            }
            assert await finish(world, world.spec()) == unbroken_now
            assert world.events(kind="attempt_failed") == []
            conditions = [event.data["message"] for event in world.events(kind="condition")]
            assert len(conditions) == 8
            assert "its store is away" in conditions[0]
            assert conditions[1] is None

    unbroken_now = unbroken(tmp_path, "ppo")
    run(scenario)


@pytest.mark.parametrize(
    ("error", "state", "reason"),
    [
        (RunFailed("5 updates in a row had a loss that is not finite"), "FAILED", "RUN_FAILED"),
        (Corrupt("the batch does not match its digest"), "SUCCEEDED", ""),
    ],
)
def test_a_failed_computation_fails_the_job_and_anything_else_is_tried_again(
    tmp_path: Path, error: Exception, state: str, reason: str
) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].refusals = {"Step": [error]}  # type: ignore[list-item]
            await world.submit(world.spec())
            view = await world.end_of()
            assert view.state == state
            if reason:
                assert view.error is not None
                assert view.error.reason == reason
                assert str(error) in view.error.message
            # The terminal event comes first: the learner is closed after it.
            await world.until(lambda: world.learners[0]._service.status().token is None, "the learner is free again")

    run(scenario)
