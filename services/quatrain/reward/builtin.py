"""Reward functions without dependencies: for trying out an installation, where no code may be uploaded."""

from typing import Any


def brevity(completion_ids: list[list[int]], **columns: Any) -> list[float]:
    """Return minus the number of tokens, the end of sequence included."""
    del columns
    return [-float(len(ids)) for ids in completion_ids]
