"""Reward functions of the closed-form tasks, in the calling convention of job specs (`rewards.py:count_symbol`)."""

from collections.abc import Sequence
from typing import Any


def count_symbol(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Task A: how often symbol 0 stands in the completion."""
    return [float(list(ids).count(0)) for ids in completion_ids]


def non_decreasing(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Task B: 1 if the symbols never fall."""
    return [float(list(ids) == sorted(ids)) for ids in completion_ids]


def end_early(completion_ids: Sequence[Sequence[int]], **_: Any) -> list[float]:
    """Task C: -0.1 for each token, the end of sequence counted; the penalty for a missing end is the job's."""
    return [-0.1 * len(ids) for ids in completion_ids]
