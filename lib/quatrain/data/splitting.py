"""The split of preference pairs into those to train on and those held out: no prompt is on both sides."""

from array import array
from heapq import nsmallest

import numpy as np

from quatrain.algorithms.permutation import order_key


def held_out_prompts(seen: "array[int]", share: float, seed: int) -> frozenset[int]:
    """Return those of the fingerprints of pairs' prompts whose pairs are held out, as the seed orders them.

    They have `share` of the pairs, or as many more as the last prompt has. Empty when share is 0, or all pairs have one
    prompt. Takes some tens of bytes a pair.
    """
    values = np.frombuffer(seen, dtype=np.uint64)
    prompts, firsts, sizes = np.unique(values, return_index=True, return_counts=True)
    wanted = min(int(len(seen) * share), len(seen) - 1)
    if len(prompts) < 2 or wanted < 1:
        return frozenset()
    by_first = np.argsort(firsts)
    chosen, count = set[int](), 0
    # Each prompt has a pair at least, so as many prompts as pairs are wanted are enough.
    for index in nsmallest(wanted, range(len(prompts)), key=order_key("held-out", seed)):
        if count >= wanted or len(chosen) == len(prompts) - 1:
            break
        place = by_first[index]
        chosen.add(int(prompts[place]))
        count += int(sizes[place])
    return frozenset(chosen)
