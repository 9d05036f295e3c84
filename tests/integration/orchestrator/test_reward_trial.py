"""What the trial of a reward says at submission, with real functions in their sandbox."""

import asyncio
import textwrap
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.world import World, deployment, put_rows, run

from quatrain.digests import sha256_hex
from quatrain.errors import InvalidInput
from quatrain.orchestrator.submission.submit import Submission
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.service import Backends, RewardService
from quatrain.reward.servicer import RewardServicer
from quatrain.v1 import reward_pb2_grpc

CODE = textwrap.dedent("""
    def letters(completions, **kwargs):
        return [float(completion.count("a")) for completion in completions]

    def needs_answer(completions, answer, **kwargs):
        return [float(a in c) for a, c in zip(answer, completions)]

    def without_kwargs(prompts, completions):
        return [0.0] * len(prompts)

    def openrlhf(queries, prompts, labels):
        return [0.0] * len(queries)

    def compute_score(data_source, solution_str, ground_truth, extra_info=None):
        return 1.0

    def trlx(samples, prompts, outputs, **kwargs):
        return [0.0] * len(samples)

    def nothing(completions, **kwargs):
        return [None] * len(completions)

    def about_few(prompts, **kwargs):
        return [1.0 if prompt == "cd" else None for prompt in prompts]

    def huge(completions, **kwargs):
        return [10_000.0 + index for index, _ in enumerate(completions)]

    def constant(completions, **kwargs):
        return [0.5] * len(completions)

    def scaled(completions, factor, **kwargs):
        return [factor * index for index, _ in enumerate(completions)]
""").encode()


def function(name: str, **more: Any) -> dict[str, Any]:
    return {"functions": [{"path": f"r.py:{name}", "code_digest": sha256_hex(CODE), **more}]}


@asynccontextmanager
async def world_with_functions(root: Path) -> AsyncIterator[World]:
    async with deployment(root, learners=0, workers=0, schedulers=0) as world:
        world.store.put(f"data/sha256/{sha256_hex(CODE)}", CODE)
        backend = FunctionBackend(world.store, FunctionSettings(allow_code=True))
        service = RewardService(world.folders("real"), Backends(world.reward, backend, world.reward))
        world.addresses["reward"] = await world.serve(
            "RewardService",
            lambda server: reward_pb2_grpc.add_RewardServiceServicer_to_server(RewardServicer(service), server),
        )
        try:
            yield world
        finally:
            await backend.close()


async def checked(world: World, spec: dict[str, Any]) -> tuple[str, ...]:
    """The warnings of a dry run."""
    plan = await world.submitter().submit(Submission(spec, "local", validate_only=True))
    return plan.document.warnings


def sets(world: World) -> tuple[str, str]:
    """Prompts without the column `answer`, and prompts with it."""
    without = [{"prompt": prompt, "topic": "t"} for prompt in ("ab", "bc", "cd", "da", "ac")]
    having = [{"prompt": prompt, "answer": "a"} for prompt in ("ba", "cb", "dc")]
    return put_rows(world.store, without), put_rows(world.store, having)


def test_a_column_that_one_set_lacks_is_named_with_the_set(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            without, having = sets(world)
            needs = function("needs_answer")
            cases = {
                "evaluation lacks it": (
                    needs,
                    {"prompts": having, "eval_prompts": without},
                    "ppo.eval_prompts",
                    "reward",
                ),
                "training lacks it": (needs, {"prompts": without, "eval_prompts": having}, "ppo.prompts", "reward"),
                "gold's set lacks it": (
                    function("letters"),
                    {"prompts": having, "eval_prompts": without, "eval_gold": needs},
                    "ppo.eval_prompts",
                    "ppo.eval_gold",
                ),
            }
            for name, (reward, ppo, lacking, field) in cases.items():
                spec = world.spec()
                spec["reward"] = reward
                spec["ppo"].update(ppo)
                with pytest.raises(InvalidInput) as caught:
                    await checked(world, spec)
                assert caught.value.violations[0].field == f"{field}.functions.0", name
                for part in ("'r.py:needs_answer'", "column 'answer'", "columns of the rows are topic", lacking):
                    assert part in caught.value.message, f"{name}: {caught.value.message}"
                assert "sample" not in caught.value.message, name

    run(scenario)


def test_a_gold_function_sees_the_evaluation_prompts_alone(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            without, having = sets(world)
            spec = world.spec(prompts=5, eval_prompts=having, eval_gold=function("needs_answer"))
            spec["reward"] = function("letters")
            spec["ppo"]["prompts"] = without
            assert await checked(world, spec) == ()

    run(scenario)


STYLES = {
    "without_kwargs": ["takes (prompts, completions) only", "was passed", "finish_reasons", "Add **kwargs"],
    "openrlhf": ["takes OpenRLHF's arguments (queries, prompts, labels)", "TRL's convention", "What was passed"],
    "compute_score": ["takes verl's arguments", "one number for each sample", "What was passed"],
    "trlx": ["takes trlx's arguments", "outputs are completions"],
}


def test_signatures_of_other_systems_are_explained(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            for name, parts in STYLES.items():
                with pytest.raises(InvalidInput) as caught:
                    await checked(world, world.spec() | {"reward": function(name)})
                missing = [part for part in parts if part not in caught.value.message]
                assert missing == [], f"{name}: {caught.value.message}"
                assert caught.value.code_reason == "REWARD_FUNCTION_FAILED"

    run(scenario)


def test_none_for_all_is_refused_and_none_for_some_is_said(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            with pytest.raises(InvalidInput, match=r"reward: None for all 8 rows that were tried of ppo\.prompts"):
                await checked(world, world.spec() | {"reward": function("nothing")})
            rows = [{"prompt": "ab"}] * 8 + [{"prompt": "cd"}] + [{"prompt": "ab"}] * 3
            spec = world.spec() | {"reward": function("about_few")}
            spec["ppo"]["prompts"] = put_rows(world.store, rows)
            warnings = await checked(world, spec)
            spec["reward"] = function("letters")
            spec["ppo"].update(eval_prompts=spec["ppo"]["prompts"], eval_gold=function("nothing"))
            gold = await checked(world, spec)
        assert any("reward: None for 11 of the 12 rows" in each for each in warnings), warnings
        assert any(each.startswith("ppo.eval_gold: None for all 12 rows") for each in gold), gold

    run(scenario)


def test_a_huge_and_a_constant_reward_are_warned_of(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            spec = world.spec() | {"reward": function("huge")}
            (huge,) = await checked(world, spec)
            assert "reward: scores of the trial reach 10003" in huge
            assert "set `scale`" in huge
            for better in ({"scale": 1e-4}, {"clip": 20_000.0, "scale": 0.001}):
                assert await checked(world, spec | {"reward": function("huge") | better}) == ()
            (constant,) = await checked(world, spec | {"reward": function("constant")})
            assert "all 4 rows of the trial got 0.5" in constant
            assert "quatrain reward test" in constant

    run(scenario)


def test_arguments_and_caps_of_a_function_reach_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            spec = world.spec() | {"reward": function("scaled", args={"factor": 20_000})}
            (huge,) = await checked(world, spec)
            assert "60000" in huge
            capped = function("scaled", args={"factor": 20_000}, clip=100.0)
            assert await checked(world, spec | {"reward": capped}) == ()
            with pytest.raises(InvalidInput, match="asks for the column 'factor'"):
                await checked(world, spec | {"reward": function("scaled")})

    run(scenario)


def test_the_four_rows_are_spread_over_the_set(tmp_path: Path) -> None:
    """A fault of the last rows is found, and the message names rows of the set."""

    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            spec = world.spec(prompts=100)
            world.reward.opinion = lambda batch: tuple(
                float("nan") if sample.extra["topic"] == "t75" else 1.0 for sample in batch.samples
            )
            spec["reward"] = {"service": "localhost:1"}
            with pytest.raises(InvalidInput, match=r"rows 1, 26, 51 and 76 of ppo\.prompts"):
                await checked(world, spec)

    run(scenario)


def test_trials_of_several_people_do_not_mix(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with world_with_functions(tmp_path) as world:
            specs = [world.spec() | {"reward": function(name)} for name in ("letters", "constant", "huge")]
            warnings = await asyncio.gather(*(checked(world, spec) for spec in specs))
            assert [len(each) for each in warnings] == [0, 1, 1]

    run(scenario)
