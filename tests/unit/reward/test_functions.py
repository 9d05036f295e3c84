"""Reward functions in their real processes."""

import asyncio
import math
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import TypeVar

import pytest
from tests.unit.reward.scenery import batch, make_tokenizer, sample

from quatrain.digests import sha256_hex
from quatrain.errors import NotFound, Overloaded, PermissionRefused, RewardFunctionError, Unavailable
from quatrain.jobspec.reward_section import FunctionSource
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.backends.functions import FunctionBackend, FunctionSettings
from quatrain.reward.runner.frames import encode_frame
from quatrain.reward.samples import Batch
from quatrain.storage.memory import MemoryStore

T = TypeVar("T")

CODE = """
    import asyncio, os, sys, time

    calls = 0

    def length(completions, **kwargs):
        return [float(len(completion)) for completion in completions]

    def convention(prompts, completions, prompt_ids, completion_ids, finish_reasons, trainer_state, answer, **kwargs):
        assert prompts == ["ab", [{"role": "user", "content": "b"}]], prompts
        assert completions == ["cd", [{"role": "assistant", "content": "d"}]], completions
        assert (prompt_ids, completion_ids) == ([[0, 1], [1]], [[2, 3, 5], [3]])
        assert finish_reasons == ["stop", "length"]
        assert answer == [42, None]
        assert trainer_state.global_step == trainer_state["step"] == 7
        assert "trainer_state" not in kwargs and "hint" in kwargs
        return [1, None]

    async def slowly(completions, **kwargs):
        await asyncio.sleep(0.01)
        return {"size": [len(c) for c in completions], "flat": [None] * len(completions)}

    def chatty(completions, log_extra, log_metric, **kwargs):
        print("x" * 300_000)
        sys.stdout.write("no end of line")
        os.write(1, b"straight to the descriptor")
        assert sys.stdin.read() == ""
        log_extra("seen", [{"text": c, "odd": float("nan")} for c in completions])
        log_metric("share", 0.5)
        return [0.0] * len(completions)

    def count(completions, **kwargs):
        global calls
        calls += 1
        return [float(calls)] * len(completions)

    def process_id(completions, **kwargs):
        return [float(os.getpid())] * len(completions)

    def environment(completions, **kwargs):
        return [float(any(name.startswith("QUATRAIN_") for name in os.environ))] * len(completions)

    def not_finite(completions, **kwargs):
        return [float("nan"), float("inf")]

    def raises(completions, **kwargs):
        for completion in completions:
            if "c" in completion:
                raise LookupError(f"no reward for {completion!r}")
        return [0.0] * len(completions)

    def raises_on_batches(completions, **kwargs):
        assert len(completions) == 1
        return [0.0]

    def hangs(completions, **kwargs):
        while "c" in "".join(completions):
            time.sleep(0.01)
        return [0.0] * len(completions)

    def leaves(completions, **kwargs):
        print("last words")
        os._exit(3)

    def exits(completions, **kwargs):
        raise SystemExit

    def crashes(completions, **kwargs):
        os.kill(os.getpid(), 11)

    def drops_one(completions, **kwargs):
        return [0.0 for completion in completions if "c" not in completion]

    def texts(completions, **kwargs):
        return ["good"] * len(completions)

    def stingy(prompts):
        return [0.0] * len(prompts)

    not_a_function = 7
"""


@pytest.fixture(autouse=True)
def rewards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "rewards_of_test.py").write_text(textwrap.dedent(CODE))
    monkeypatch.syspath_prepend(tmp_path)


def run(
    tmp_path: Path,
    work: Callable[[FunctionBackend], Awaitable[T]],
    *,
    store: MemoryStore | None = None,
    allow_code: bool = False,
    queue_size: int = 8,
    kept: int = 4,
) -> T:
    """Do some work with a backend that is closed afterwards."""

    async def main() -> T:
        settings = FunctionSettings(allow_code, queue_size, kept)
        backend = FunctionBackend(store or MemoryStore(), settings)
        try:
            return await work(backend)
        finally:
            await backend.close()

    return asyncio.run(main())


def function(name: str) -> FunctionSource:
    return FunctionSource(path=f"rewards_of_test:{name}")


@pytest.fixture
def two(tmp_path: Path) -> Batch:
    """Two samples; only the second has the letter c in its completion."""
    return batch(make_tokenizer(tmp_path / "tokenizer"), sample("a", "ad$"), sample("b", "cd"), timeout=20.0)


def score(tmp_path: Path, name: str, samples: Batch) -> SourceScores:
    return run(tmp_path, lambda backend: backend.score(function(name), samples))


def failure(tmp_path: Path, name: str, samples: Batch) -> str:
    with pytest.raises(RewardFunctionError) as caught:
        score(tmp_path, name, samples)
    return caught.value.message


def test_a_list_is_one_term_named_after_the_function(tmp_path: Path, two: Batch) -> None:
    scores = score(tmp_path, "length", two)

    assert scores.values == (2.0, 2.0)
    assert scores.terms == {"length": (2.0, 2.0)}
    assert scores.version == f"rewards_of_test:length@{sha256_hex((tmp_path / 'rewards_of_test.py').read_bytes())}"


def test_the_convention_with_messages_columns_and_none(tmp_path: Path) -> None:
    messages = sample([{"role": "user", "content": "b"}], "d", hint="h")
    samples = batch(make_tokenizer(tmp_path / "tokenizer"), sample(answer=42, trainer_state=1), messages, step=7)

    assert score(tmp_path, "convention", samples).values == (1.0, None)


def test_an_async_function_with_a_dict_of_terms(tmp_path: Path, two: Batch) -> None:
    scores = score(tmp_path, "slowly", two)

    assert scores.values == (2.0, 2.0)
    assert scores.terms == {"size": (2.0, 2.0), "flat": (None, None)}


def test_printing_reading_and_logging_do_not_break_the_protocol(tmp_path: Path, two: Batch) -> None:
    scores = score(tmp_path, "chatty", two)

    assert scores.values == (0.0, 0.0)
    assert scores.logged == {"seen": ({"text": "ad", "odd": "nan"}, {"text": "cd", "odd": "nan"})}
    assert scores.metrics == {"share": (0.5,)}


def test_nan_and_infinity_reach_the_service(tmp_path: Path, two: Batch) -> None:
    nan, infinity = score(tmp_path, "not_finite", two).values

    assert nan is not None
    assert math.isnan(nan)
    assert infinity == math.inf


def test_a_process_stays_warm_and_serves_concurrent_calls_one_by_one(tmp_path: Path, two: Batch) -> None:
    async def work(backend: FunctionBackend) -> list[float]:
        scored = await asyncio.gather(*(backend.score(function("count"), two) for _ in range(4)))
        return sorted(scores.values[0] or 0.0 for scores in scored)

    assert run(tmp_path, work) == [1.0, 2.0, 3.0, 4.0]


def test_more_calls_than_may_wait_are_refused(tmp_path: Path, two: Batch) -> None:
    async def work(backend: FunctionBackend) -> list[object]:
        calls = (backend.score(function("count"), two) for _ in range(4))
        return [type(outcome) for outcome in await asyncio.gather(*calls, return_exceptions=True)]

    assert run(tmp_path, work, queue_size=1) == [SourceScores, SourceScores, Overloaded, Overloaded]


def test_the_least_recently_used_processes_are_ended_and_all_at_the_end(tmp_path: Path, two: Batch) -> None:
    async def work(backend: FunctionBackend) -> tuple[list[str], list[int]]:
        pids = []
        for name in ("process_id", "length", "process_id", "count"):
            values = (await backend.score(function(name), two)).values
            pids += [int(values[0] or 0)] if name == "process_id" else []
        return backend.warm, pids

    warm, pids = run(tmp_path, work, kept=2)

    assert warm == ["rewards_of_test:process_id", "rewards_of_test:count"]
    assert pids[0] == pids[1]
    with pytest.raises(ProcessLookupError):
        os.kill(pids[0], 0)


def test_the_function_does_not_see_the_services_settings(
    tmp_path: Path, two: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QUATRAIN_STORAGE__SECRET_KEY", "secret")

    assert score(tmp_path, "environment", two).values == (0.0, 0.0)


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("raises", ["raised LookupError: no reward for 'cd'", "rewards_of_test.py, line", "sample 1 of 2", "'b'"]),
        ("raises_on_batches", ["raised AssertionError", "on 2 samples together"]),
        ("leaves", ["ended with exit code 3", "last words", "sample 0 of 2"]),
        ("exits", ["ended with exit code 0"]),
        ("crashes", ["ended by SIGSEGV"]),
        ("drops_one", ["1 values for 2 samples", "sample 1 of 2"]),
        ("texts", ["'good' (str)", "sample 0 of 2"]),
        ("stingy", ["cannot be used: takes (prompts) only", "unexpected keyword argument", "Add **kwargs"]),
        ("lenght", ["cannot be used", "did you mean 'length'?"]),
        ("not_a_function", ["is a int, not a function"]),
    ],
)
def test_a_failure_names_function_cause_and_sample(tmp_path: Path, two: Batch, name: str, parts: list[str]) -> None:
    message = failure(tmp_path, name, two)

    assert f"rewards_of_test:{name}" in message
    assert [part for part in parts if part not in message] == []


def test_a_hanging_function_is_ended_and_its_sample_found(tmp_path: Path, two: Batch) -> None:
    samples = Batch(two.job, two.samples, two.tokenizer, two.tokenizer_ref, timeout=3.0)

    message = failure(tmp_path, "hangs", samples)

    assert "did not return within 3 s, on sample 1 of 2 with prompt 'b'" in message


def test_after_a_failure_the_function_works_again(tmp_path: Path, two: Batch) -> None:
    sound = Batch(two.job, two.samples[:1], two.tokenizer, two.tokenizer_ref)

    async def work(backend: FunctionBackend) -> SourceScores:
        with pytest.raises(RewardFunctionError):
            await backend.score(function("raises"), two)
        return await backend.score(function("raises"), sound)

    assert run(tmp_path, work).values == (0.0,)


def test_a_cancelled_call_ends_the_process_at_once(tmp_path: Path, two: Batch) -> None:
    async def work(backend: FunctionBackend) -> float:
        await backend.score(function("hangs"), Batch(two.job, two.samples[:1], two.tokenizer, two.tokenizer_ref))
        call = asyncio.create_task(backend.score(function("hangs"), two))
        await asyncio.sleep(0.1)
        started = time.monotonic()
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)
        assert backend.warm == []
        return time.monotonic() - started

    assert run(tmp_path, work) < 10.0


def test_a_module_that_is_not_there_or_cannot_be_imported(tmp_path: Path, two: Batch) -> None:
    (tmp_path / "broken_rewards.py").write_text("import no_such_module_at_all")

    async def work(backend: FunctionBackend, path: str) -> str:
        with pytest.raises(RewardFunctionError) as caught:
            await backend.score(FunctionSource(path=path), two)
        return caught.value.message

    assert "No module named 'nowhere'" in run(tmp_path, lambda backend: work(backend, "nowhere:f"))
    assert "(broken_rewards.py, line 1)" in run(tmp_path, lambda backend: work(backend, "broken_rewards:f"))


def uploaded(store: MemoryStore, code: str) -> FunctionSource:
    digest = sha256_hex(code.encode())
    store.put(f"data/sha256/{digest}", code.encode())
    return FunctionSource(path="../my rewards.py:brevity", code_digest=digest)


def test_only_packages_that_the_operator_names_and_never_the_standard_library(tmp_path: Path, two: Batch) -> None:
    def refused(path: str, *packages: str) -> str:
        async def work() -> str:
            backend = FunctionBackend(MemoryStore(), FunctionSettings(packages=packages))
            with pytest.raises(PermissionRefused) as caught:
                await backend.score(FunctionSource(path=path), two)
            return caught.value.message

        return asyncio.run(work())

    assert "functions of 'subprocess' are not open to jobs" in refused("subprocess:run")
    assert "functions of 'os' are not open to jobs" in refused("os.path:join", "rewards_of_test", "os")
    assert "reward.packages (our_rewards)" in refused("rewards_of_test:length", "our_rewards")


UPLOADED = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Limit:
    letters: int = 2

def brevity(completions, **kwargs):
    return [float(Limit().letters - len(completion)) for completion in completions]
"""


def test_uploaded_code_runs_where_it_is_allowed(tmp_path: Path, two: Batch) -> None:
    store = MemoryStore()
    source = uploaded(store, UPLOADED)

    scores = run(tmp_path, lambda backend: backend.score(source, two), store=store, allow_code=True)

    assert scores.values == (0.0, 0.0)
    assert scores.version.endswith(f"@{source.code_digest}")


def test_uploaded_code_is_refused_where_it_is_not_allowed(tmp_path: Path, two: Batch) -> None:
    store = MemoryStore()
    source = uploaded(store, UPLOADED)

    with pytest.raises(PermissionRefused, match=r"reward\.allow_code"):
        run(tmp_path, lambda backend: backend.score(source, two), store=store)


def test_uploaded_code_that_is_not_in_the_store_is_not_found(tmp_path: Path, two: Batch) -> None:
    source = FunctionSource(path="file.py:f", code_digest="0" * 64)

    with pytest.raises(NotFound, match="data/sha256/0000"):
        run(tmp_path, lambda backend: backend.score(source, two), allow_code=True)


def test_a_runner_whose_service_is_gone_ends_though_its_function_hangs(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "quatrain.reward.runner"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as runner:
        assert runner.stdin is not None
        assert runner.stdout is not None
        runner.stdin.write(encode_frame({"target": "rewards_of_test:hangs"}))
        columns = {"prompts": ["p"], "completions": ["c"]}
        runner.stdin.write(encode_frame({"columns": columns, "trainer_state": {}, "timeout": 60}))
        runner.stdin.flush()
        runner.stdout.read(4)  # it has loaded the function

        runner.stdin.close()

        assert runner.wait(timeout=10) == 0


def test_a_closed_backend_starts_nothing(tmp_path: Path, two: Batch) -> None:
    async def work(backend: FunctionBackend) -> None:
        await backend.close()
        with pytest.raises(Unavailable, match="stopping"):
            await backend.score(function("length"), two)

    run(tmp_path, work)
