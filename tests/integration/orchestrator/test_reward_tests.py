"""`quatrain reward test`: the command, the API and the sandbox; rows with their terms, times and faults, and no job."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.integration.orchestrator.test_api import api_of
from tests.integration.orchestrator.test_reward_trial import function, world_with_functions
from tests.integration.orchestrator.world import World, put_rows, run

from quatrain.client import AsyncClient
from quatrain.errors import InvalidInput

REWARDS = """
import time
from words import listed

def terms(completions, prompts, **kwargs):
    texts = [c.removesuffix("f") for c in completions]
    return {"a": [float(c.count("a")) for c in texts], "words": [float(c in listed) for c in texts]}

def fragile(completions, log_metric, **kwargs):
    log_metric("seen", len(completions))
    completions = [c.removesuffix("f") for c in completions]
    for completion in completions:
        assert completion != "bb", "no luck with this one"
    return [None if c == "cc" else float("nan") if c == "dd" else 1.0 for c in completions]

def slow(completions, **kwargs):
    time.sleep(60)
"""


@asynccontextmanager
async def served(root: Path) -> AsyncIterator[tuple[World, str]]:
    async with world_with_functions(root) as world:
        yield world, await world.serve("JobService", api_of(world), public=True)


def write_spec(folder: Path, world: World, functions: list[dict[str, Any]], **more: Any) -> Path:
    """A spec with a folder of reward code and prompts, four of them, beside it.

    The end token of this model is no special one: texts show it.
    """
    (folder / "code").mkdir(parents=True, exist_ok=True)
    (folder / "code" / "judge.py").write_text(REWARDS)
    (folder / "code" / "words.py").write_text("listed = ['ab']\n")
    (folder / "prompts.jsonl").write_text("".join(f'{{"prompt": "{each}"}}\n' for each in ("ab", "bc", "cd", "da")))
    spec = world.spec() | {"reward": {"functions": functions, **more}}
    spec["ppo"]["prompts"] = "prompts.jsonl"
    (folder / "job.yaml").write_text(json.dumps(spec))
    return folder / "job.yaml"


async def quatrain(target: str, *arguments: str | Path) -> tuple[int, str, str]:
    """Run the command line in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "quatrain.cli", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "QUATRAIN_ENDPOINT": target},
    )
    out, err = await process.communicate()
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def test_the_command_shows_terms_and_weighted_scores_and_makes_no_job(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "server") as (world, target):
            judge = {"path": "code/:judge:terms", "weight": 2.0, "name": "judge"}
            spec = write_spec(tmp_path / "mine", world, [judge], clip=3.0)
            (tmp_path / "given.jsonl").write_text('"ab"\n{"completion": "aaa"}\n\n"cc"\n')
            code, out, err = await quatrain(
                target, "reward", "test", spec, "--completions", tmp_path / "given.jsonl", "-o", "json"
            )
            assert code == 0, err
            report = json.loads(out)
            shown = [(row["row"], row["completion"], row["score"], row["terms"]) for row in report["rows"]]
            assert shown == [
                (1, "abf", 3.0, {"a": 1.0, "words": 1.0}),
                (2, "aaaf", 3.0, {"a": 3.0, "words": 0.0}),
                (3, "ccf", 0.0, {"a": 0.0, "words": 0.0}),
            ]
            assert "3 of 3 completions read differently as tokens" in err
            assert "row 1 is 'abf' in place of 'ab'" in err
            assert {row["outcome"] for row in report["rows"]} == {"scored"}
            assert report["prompts"] == "ppo.prompts"
            assert all(row["seconds"] > 0 for row in report["rows"])

            code, out, err = await quatrain(target, "reward", "test", spec, "--n", "2", "--set", "reward.clip=0.5")
            assert code == 0, err
            assert out.splitlines()[0].split() == [
                *("ROW", "OUTCOME", "SCORE", "a", "words", "SECONDS", "FROM", "COMPLETION")
            ]
            assert [line.split()[0] for line in out.splitlines()[1:3]] == ["1", "3"]
            assert "made-up completions are beginnings of other prompts" in err
            assert world.store.list("jobs/") == world.store.list("active/") == []

    run(scenario)


def test_each_row_says_what_became_of_it(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "server") as (world, target), AsyncClient(target) as client:
            spec = write_spec(tmp_path / "mine", world, [{"path": "code/:judge:fragile"}])
            report = await client.test_reward(spec, completions=["ab", "bb", "cc", "dd"])
            assert [row.outcome for row in report.rows] == ["scored", "failed", "skipped", "refused"]
            assert [row.score for row in report.rows] == [1.0, None, None, None]
            assert "no luck with this one" in report.rows[1].reason
            assert "term 'fragile' is nan" in report.rows[3].reason
            assert "on sample 1 of 4" in report.together
            assert not report.sound
            sound = await client.test_reward(spec, completions=["ab", "cc"])
            assert sound.sound
            assert sound.metrics == {"seen": 2.0}
            code, out, err = await quatrain(target, "reward", "test", spec, "--completions", tmp_path / "none.jsonl")
            assert code == 3
            assert "none.jsonl cannot be read" in err
            (tmp_path / "bad.jsonl").write_text('"ab"\nbare words\n')
            code, out, err = await quatrain(target, "reward", "test", spec, "--completions", tmp_path / "bad.jsonl")
            assert code == 3
            assert "bad.jsonl:2: 'bare words' is not JSON" in err
            (tmp_path / "bb.jsonl").write_text('"bb"\n')
            code, out, err = await quatrain(target, "reward", "test", spec, "--completions", tmp_path / "bb.jsonl")
            assert code == 3
            assert "reward function 'code/:judge:fragile' raised AssertionError" in out

    run(scenario)


def test_a_slow_reward_does_not_take_all_rows_times_its_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "server") as (world, target), AsyncClient(target) as client:
            spec = write_spec(tmp_path / "mine", world, [{"path": "code/:judge:slow"}], timeout=0.5)
            report = await client.test_reward(spec, rows=4)
            assert [row.outcome for row in report.rows] == ["failed"] * 4
            assert "did not return within 0.5 s" in report.rows[0].reason
            assert "not tried: 2 rows took all of reward.timeout" in report.rows[3].reason

    run(scenario)


def test_the_datas_own_answers_are_scored_and_the_gold_reward_on_its_prompts(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with served(tmp_path / "server") as (world, target), AsyncClient(target) as client:
            rows = [{"prompt": "ab", "response": "aa"}, {"prompt": "bc", "response": ""}]
            spec = world.spec(eval_prompts=put_rows(world.store, rows), eval_gold=function("letters"))
            spec["reward"] = function("constant")
            report = await client.test_reward(spec, gold=True)
            assert [(row.source, row.completion) for row in report.rows] == [("data", "aaf"), ("made up", "ab")]
            assert [row.score for row in report.rows] == [2.0, 1.0]
            assert report.prompts == "ppo.eval_prompts"
            assert "1 of 2 completions read differently" in report.warnings[0]
            (warning,) = (await client.test_reward(spec, rows=3)).warnings
            assert "all 3 rows of the trial got 0.5" in warning

    run(scenario)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"rows": 65}, "1 to 64 rows"),
        ({"rows": -1}, "1 to 64 rows"),
        ({"completions": ["ab"] * 9}, r"9 completions for the 8 rows of ppo\.prompts"),
        ({"completions": ["ab"] * 65}, "at most 64"),
        ({"gold": True}, "the spec has no gold reward"),
        ({"overrides": ["reward={data: 'sha256:" + "0" * 64 + "'}"]}, "there is none to test yet"),
        ({"overrides": ["ppo.prompts=sha256:" + "0" * 64]}, r"ppo\.prompts: "),
    ],
)
def test_what_cannot_be_tested_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    async def scenario() -> None:
        async with served(tmp_path) as (world, target), AsyncClient(target) as client:
            spec = world.spec() | {"reward": function("letters")}
            with pytest.raises(InvalidInput, match=said):
                await client.test_reward(spec, **asked)

    run(scenario)
