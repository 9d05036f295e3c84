import asyncio
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from quatrain.reward.runner.calling import BadReturn, Returned, call_function

COLUMNS: dict[str, list[Any]] = {
    "prompts": ["p", "q"],
    "completions": ["a", "bb"],
    "prompt_ids": [[1], [2]],
    "completion_ids": [[3], [4, 4]],
    "finish_reasons": ["stop", "length"],
    "answer": ["x", None],
}


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def call(runner: asyncio.Runner, function: Callable[..., Any], **trainer_state: Any) -> Returned:
    return call_function(function, COLUMNS, trainer_state, runner)


def test_every_argument_of_the_convention_arrives(runner: asyncio.Runner) -> None:
    seen: dict[str, Any] = {}

    def score(**kwargs: Any) -> list[float]:
        seen.update(kwargs)
        return [0.0, 0.0]

    call(runner, score, step=3, total_steps=9, job="j")

    assert {name: seen[name] for name in COLUMNS} == COLUMNS
    state = seen["trainer_state"]
    assert (state.global_step, state["global_step"], state.max_steps, state["step"], state.job) == (3, 3, 9, 3, "j")
    assert callable(seen["log_extra"])
    assert callable(seen["log_metric"])
    assert not hasattr(state, "no_such_field")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ([1, True], [1.0, 1.0]),
        ((0.5, None), [0.5, None]),
        (np.array([1.5, 2.5], dtype=np.float32), [1.5, 2.5]),
        (torch.tensor([1.0, 2.0]), [1.0, 2.0]),
        ([torch.tensor(3.0), np.float32(4.0)], [3.0, 4.0]),
    ],
)
def test_numbers_of_any_library_are_accepted(runner: asyncio.Runner, value: Any, expected: list[Any]) -> None:
    returned = call(runner, lambda **_: value)

    assert returned.terms == [(None, expected)]


def test_nan_and_infinity_pass_since_they_refuse_a_sample_and_not_the_call(runner: asyncio.Runner) -> None:
    ((_, values),) = call(runner, lambda **_: [math.nan, -math.inf]).terms

    assert values[0] is not None
    assert math.isnan(values[0])
    assert values[1] == -math.inf


def test_a_dict_is_one_list_a_term(runner: asyncio.Runner) -> None:
    returned = call(runner, lambda **_: {"length": [1, 2], "tone": [None, 0.5]})

    assert returned.terms == [("length", [1.0, 2.0]), ("tone", [None, 0.5])]


def test_async_functions_are_awaited_on_one_loop(runner: asyncio.Runner) -> None:
    loops = []

    async def score(completions: list[str], **kwargs: Any) -> list[float]:
        await asyncio.sleep(0)
        loops.append(asyncio.get_running_loop())
        return [float(len(completion)) for completion in completions]

    assert [call(runner, score).terms, call(runner, score).terms] == [[(None, [1.0, 2.0])]] * 2
    assert loops[0] is loops[1]


@pytest.mark.parametrize(
    ("value", "message", "sample"),
    [
        ([1.0], "1 values for 2 samples", None),
        (None, "NoneType", None),
        (1.0, "float", None),
        ("ab", "str", None),
        ([1.0, "2.0"], "'2.0'", 1),
        ([[1.0], [2.0]], "list", 0),
        ({}, "empty dict", None),
        ({"a": [1.0, 2.0], "b": [1.0]}, "term 'b' has 1 values", None),
    ],
)
def test_a_wrong_return_says_what_was_there(
    runner: asyncio.Runner, value: Any, message: str, sample: int | None
) -> None:
    with pytest.raises(BadReturn, match=message) as caught:
        call(runner, lambda **_: value)

    assert caught.value.sample == sample


def test_logged_columns_and_metrics_are_kept(runner: asyncio.Runner) -> None:
    def score(log_extra: Any, log_metric: Any, **kwargs: Any) -> list[float]:
        log_extra("parsed", ["a", np.int64(2)])
        log_metric("hit", 1)
        log_metric("hit", 0)
        return [0.0, 0.0]

    logged = call(runner, score).logged

    assert logged.columns == {"parsed": ["a", 2]}
    assert logged.metrics == {"hit": [1.0, 0.0]}


def test_a_logged_column_of_another_length_is_an_error_of_the_function(runner: asyncio.Runner) -> None:
    with pytest.raises(ValueError, match="got 1 values for 2 samples"):
        call(runner, lambda log_extra, **_: log_extra("x", [1]))
