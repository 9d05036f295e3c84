"""Completions as texts, and columns as texts to compare them with."""

from collections.abc import Sequence
from typing import Any


def texts_of(completions: Sequence[Any]) -> list[str]:
    """Return the text of each completion, a text or a list of messages. Raises ValueError for anything else."""
    return [_text(completion) for completion in completions]


def column_of(columns: dict[str, Any], name: str) -> list[Any]:
    """Return the values of a column of the prompts. Raises ValueError when the rows have no such column."""
    if name not in columns:
        known = (
            "prompts",
            "prompt_ids",
            "completion_ids",
            "finish_reasons",
            "trainer_state",
            "log_extra",
            "log_metric",
        )
        there = ", ".join(repr(each) for each in columns if each not in known) or "none"
        raise ValueError(
            f"the prompts have no column {name!r}; there are: {there}. Name one in `args: {{column: ...}}`"
        )
    values: list[Any] = columns[name]
    return values


def _text(completion: Any) -> str:
    if isinstance(completion, str):
        return completion
    if isinstance(completion, list):
        return "".join(str(message["content"]) for message in completion)
    raise ValueError(f"a completion is a {type(completion).__name__}, neither a text nor a list of messages")
