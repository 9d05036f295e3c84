"""Calls a reward function by TRL's convention and reads what it returns."""

import asyncio
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from typing import Any

from quatrain.reward.runner.signatures import check_signature


class BadReturn(Exception):
    """The function returned something that is no reward. `sample` is the first wrong sample, when there is one."""

    def __init__(self, message: str, sample: int | None = None) -> None:
        super().__init__(message)
        self.sample = sample


class TrainerState(dict[str, Any]):
    """What a function is told about the training: `state.global_step` or `state["global_step"]`.

    Quatrain's `step` and `total_steps` also have the names of transformers.TrainerState.
    """

    def __init__(self, values: Mapping[str, object]) -> None:
        step, total = values.get("step", 0), values.get("total_steps", 0)
        super().__init__(global_step=step, max_steps=total, epoch=0.0, log_history=[], is_world_process_zero=True)
        self.update(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"trainer_state has no {name!r}; it has {', '.join(sorted(self))}") from None


@dataclass
class Logged:
    """What the function logs: a column has one value for each sample, a metric one for each call of `log_metric`."""

    samples: int
    columns: dict[str, list[Any]] = field(default_factory=dict)
    metrics: dict[str, list[float]] = field(default_factory=dict)

    def log_extra(self, column: str, values: Sequence[Any]) -> None:
        """Keep one value for each sample beside the scores. Raises ValueError on another number of values."""
        rows = _listed(values)
        if rows is None or len(rows) != self.samples:
            got = "no list" if rows is None else f"{len(rows)} values"
            raise ValueError(f"log_extra({column!r}, ...) got {got} for {self.samples} samples")
        self.columns[str(column)] = [_plain(value) for value in rows]

    def log_metric(self, name: str, value: float) -> None:
        """Keep a number about the whole call; numbers of one name are averaged."""
        self.metrics.setdefault(str(name), []).append(float(value))


@dataclass(frozen=True)
class Returned:
    """The lists of values that make up the reward. A single list, returned without a dict, has the name None."""

    terms: list[tuple[str | None, list[float | None]]]
    logged: Logged


def call_function(
    function: Callable[..., Any],
    columns: Mapping[str, list[Any]],
    trainer_state: Mapping[str, object],
    runner: asyncio.Runner,
    args: Mapping[str, object] | None = None,
) -> Returned:
    """Call the function with one list for each column and check what it returns.

    `columns` has prompts, completions, prompt_ids, completion_ids, finish_reasons and the extra columns; `args` of the
    spec go before columns of the same name. Raises
    BadSignature, BadReturn, and whatever the function raises.
    """
    samples = len(columns["prompts"])
    logged = Logged(samples)
    passed = {
        **columns,
        **(args or {}),
        "trainer_state": TrainerState(trainer_state),
        "log_extra": logged.log_extra,
        "log_metric": logged.log_metric,
    }
    check_signature(function, passed, args or {})
    value = function(**passed)
    if inspect.isawaitable(value):
        value = runner.run(_awaited(value))
    if not isinstance(value, Mapping):
        return Returned([(None, _values(value, samples, "the value"))], logged)
    if not value:
        raise BadReturn("an empty dict; a dict has one list for each term")
    return Returned([(str(name), _values(term, samples, f"term {name!r}")) for name, term in value.items()], logged)


async def _awaited(value: Any) -> Any:
    return await value


def _values(value: Any, samples: int, what: str) -> list[float | None]:
    rows = _listed(value)
    if rows is None:
        raise BadReturn(f"{what} is a {type(value).__name__}; a list with one number or None for each sample is needed")
    if len(rows) != samples:
        raise BadReturn(f"{what} has {len(rows)} values for {samples} samples")
    return [_number(row, index, what) for index, row in enumerate(rows)]


def _listed(value: Any) -> list[Any] | None:
    """Return a list for a list, a tuple, an array or a tensor, None for anything else."""
    if isinstance(value, list | tuple):
        return list(value)
    rows = value.tolist() if hasattr(value, "tolist") else None
    return rows if isinstance(rows, list) else None


def _number(value: Any, index: int, what: str) -> float | None:
    if value is None:
        return None
    plain = _plain(value)
    if isinstance(plain, Real):
        return float(plain)
    raise BadReturn(f"{what} has {plain!r:.60} ({type(value).__name__}) where a number or None is needed", index)


def _plain(value: Any) -> Any:
    """Return a Python number for a scalar of numpy or torch, and anything else unchanged."""
    return value.item() if hasattr(value, "item") and getattr(value, "ndim", None) == 0 else value
