"""Splitting rows of unequal length into microbatches of a bounded size."""

from collections.abc import Sequence


def by_token_budget(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Groups of row indices such that rows x longest row <= budget, or one row where that alone is longer.

    Rows are taken from the longest to the shortest (ties by index), so that little is padded and the largest microbatch
    comes first, where a lack of memory shows at once. Equal arguments give equal groups. Raises ValueError for a budget
    below 1.
    """
    if budget < 1:
        raise ValueError(f"token budget must be 1 or more, not {budget}")
    order = sorted(range(len(lengths)), key=lambda index: (-lengths[index], index))
    groups: list[list[int]] = []
    room = 0
    for index in order:
        if room < 1:
            groups.append([])
            room = max(1, budget // max(1, lengths[index]))
        groups[-1].append(index)
        room -= 1
    return groups
