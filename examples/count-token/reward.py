"""The reward of the task: how often symbol 0 stands in the completion."""

from typing import Any


def count_zeros(completion_ids: list[list[int]], **kwargs: Any) -> list[float]:
    """A reward function in TRL's convention."""
    del kwargs
    return [float(list(ids).count(0)) for ids in completion_ids]
