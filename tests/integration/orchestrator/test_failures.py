"""Every kind of failure, provoked: the error names where, with which version, who, what happened, and what to do."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.integration.orchestrator.world import World, deployment, run, write_model

from quatrain.errors import OutOfMemory, QuatrainError, RewardFunctionError, RunFailed
from quatrain.generation.engines.base import Chunk, Completion
from quatrain.learner.backends import Check, StepResult
from quatrain.learner.backends.fake import FakeTrainer
from quatrain.storage.folders import upload_model_folder

LEARNER = "learner {learner}"
ALWAYS = 20


def refusing(error: QuatrainError, times: int = 1, method: str = "Step") -> Callable[[World], None]:
    """The learner answers the next calls with this error."""

    def provoke(world: World) -> None:
        world.learners[0].refusals[method] = [error] * times

    return provoke


def dying(world: World) -> None:
    for call in range(1, 1 + ALWAYS):
        world.learners[0].die_at("Step", call)


def sampling(error: Exception) -> Callable[[World], None]:
    """Generation fails with this error as soon as the first step is sealed."""

    def provoke(world: World) -> None:
        def fail() -> None:
            if world.view().sealed:
                raise error

        world.engine.before = fail

    return provoke


@dataclass(frozen=True)
class Case:
    """What goes wrong, and what the error says besides stage, step, version and attempt."""

    provoke: Callable[[World], None]
    reason: str
    parts: tuple[str, ...]
    spec: dict[str, Any] | None = None
    place: str = "ppo after step {done} of 3, policy version {done}, attempt "
    done: int = 0


def opinion(value: float | None) -> Callable[[World], None]:
    def provoke(world: World) -> None:
        world.reward.opinion = lambda batch: tuple(value for _ in batch.samples)

    return provoke


def scoring(error: QuatrainError) -> Callable[[World], None]:
    def provoke(world: World) -> None:
        def fail(_: object) -> tuple[float | None, ...]:
            raise error

        world.reward.opinion = fail

    return provoke


CASES = {
    "the learner dies again and again": Case(
        dying,
        "RETRIES_USED_UP",
        (LEARNER, "lost at ppo step 1 (policy version 0): ", "limits.retries is 1", "look at the learners' logs"),
        {"limits": {"retries": 1}},
    ),
    "the learner has too little memory": Case(
        refusing(OutOfMemory("out of memory: CUDA out of memory. Tried to allocate 2.00 GiB"), ALWAYS),
        "LEARNER_OUT_OF_MEMORY",
        (LEARNER, "lost at ppo step 1 (policy version 0): out of memory", "twice in a row", "microbatch_tokens (it is"),
    ),
    "too little memory to open": Case(
        refusing(OutOfMemory("out of memory: not enough memory"), ALWAYS, "Open"),
        "LEARNER_OUT_OF_MEMORY",
        (LEARNER, "lost at ppo opening", "model.dtype to bfloat16, or use a learner with more memory"),
    ),
    "updates that are not finite": Case(
        refusing(RunFailed("The policy model had 6 updates in a row with a non-finite loss; lower its learning rate.")),
        "RUN_FAILED",
        ("learner at {learner}: The policy model had", "lower its learning rate"),
    ),
    "generation has too little memory": Case(
        sampling(MemoryError()),
        "OUT_OF_MEMORY",
        (
            "rollout of step 2 with policy version 1 failed: ",
            "GenerationService at {generation}: out of memory",
            "ppo.chunk_size",
        ),
        done=1,
    ),
    "generation samples nonsense": Case(
        sampling(RunFailed("The policy gives logits that are not finite; its weights hold NaN or infinity.")),
        "RUN_FAILED",
        (
            "rollout of step 2 with policy version 1",
            "GenerationService at {generation}: ",
            "logits that are not finite",
        ),
        done=1,
    ),
    "the reward function fails": Case(
        scoring(RewardFunctionError("count failed on sample 0: ZeroDivisionError")),
        "REWARD_FUNCTION_FAILED",
        (
            "rollout of step 1 with policy version 0",
            "RewardService at {reward}: ",
            "count failed on sample 0",
            "--dry-run",
        ),
    ),
    "scores that are not finite": Case(
        opinion(float("nan")), "TOO_MANY_REFUSED", ("4 of 4 samples of step 1", "is nan", "raise ppo.max_refused_share")
    ),
    "no score at all": Case(opinion(None), "EMPTY_BATCH", ("no sample of step 1", "quatrain job rollouts")),
    "no time": Case(
        opinion(0.5),
        "WALL_TIME",
        ("limits.wall_time of 0.01 s", "raise limits.wall_time"),
        {"limits": {"wall_time": 0.01}},
        place="",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_error_of_a_failed_job_tells_all(tmp_path: Path, case: Case) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path, schedulers=0) as world:
            await world.submit({**world.spec(), **(case.spec or {})})
            case.provoke(world)
            world.start_scheduler()
            view = await world.end_of(seconds=40.0)
            assert view.state == "FAILED"
            assert view.error is not None
            assert view.error.reason == case.reason
            known = {**world.addresses, "learner": world.learner_addresses[0], "done": case.done}
            for part in (case.place, *case.parts):
                assert part.format(**known) in view.error.message

    run(scenario)


def test_a_recovery_tells_who_was_lost_where_and_what_comes_next(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            world.learners[0].die_at("Step", 3)
            await world.submit({**world.spec(), "limits": {"retries": 4}})
            assert (await world.end_of()).state == "SUCCEEDED"
            (told,) = [e.data["reason"] for e in world.events(kind="state_changed") if e.data["state"] == "RECOVERING"]
            learner = world.learner_addresses[0]
            assert told.startswith(f"learner {learner} lost at ppo step 3 (policy version 2): ")
            assert told.endswith("; recovering from step 2, attempt 2 of 5")

    run(scenario)


def test_generation_that_does_not_obey_its_settings_is_found_before_the_first_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ramble(self: Any, chunk: Chunk) -> list[Completion]:
        ids = np.array([0, 5, 1], np.int32)  # 5 is the end token
        return [Completion(ids, np.full(3, -1.0, np.float32), "length") for _ in chunk.prompts]

    monkeypatch.setattr("tests.integration.orchestrator.fakes.AgreeingEngine.sample", ramble)

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec())
            view = await world.end_of()
            assert view.error is not None
            assert view.error.reason == "SAMPLING_MISMATCH"
            assert "it gave 3 tokens where ppo.generation.max_new_tokens is 6" in view.error.message
            assert view.sealed == {}

    run(scenario)


def test_a_reference_of_its_own_has_to_give_logprobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(self: Any, prompts: Any, completions: Any, temperature: float) -> list[Any]:
        return [np.full(len(row), 2.5, np.float32) for row in completions]

    monkeypatch.setattr("tests.integration.orchestrator.fakes.AgreeingReference.logprobs", wrong)

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            other = upload_model_folder(world.store, write_model(tmp_path / "other", positions=128))
            await world.submit({**world.spec(), "reference": {"model": f"sha256:{other.digest}"}})
            view = await world.end_of()
            assert view.error is not None
            assert view.error.reason == "LOGPROB_MISMATCH"
            assert "the reference gives 2.5 as the logprob of a token" in view.error.message

    run(scenario)


def test_a_sampler_that_drifts_away_is_a_condition_of_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def measured(self: FakeTrainer, step: int, batch: bytes | None, check: Check) -> StepResult:
        trained = train(self, step, batch, check)
        return StepResult({**trained.metrics, "sampler/mismatch_mean": 0.5 if 2 <= step <= 4 else 1e-6}, trained.tokens)

    train = FakeTrainer.train
    monkeypatch.setattr(FakeTrainer, "train", measured)

    async def scenario() -> None:
        async with deployment(tmp_path) as world:
            await world.submit(world.spec(steps=5))
            assert (await world.end_of()).state == "SUCCEEDED"
            said = [e.data["message"] for e in world.events(kind="condition") if e.data["name"] == "sampler_mismatch"]
            assert len(said) == 2
            assert "mean difference 5.00e-01 (at most 1e-04 in float32), step 4" in said[0]
            assert said[1] is None

    run(scenario)
