"""Reward functions that need nothing: for trying out an installation, where no code may be uploaded."""

from typing import Any


def brevity(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Minus the number of tokens, the end of sequence counted."""
    del columns
    return [-float(len(ids)) for ids in completion_ids]
