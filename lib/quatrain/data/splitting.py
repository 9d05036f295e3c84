"""The split of preference pairs into those to train on and those held out: no prompt is on both sides."""

from array import array
from collections import Counter
from collections.abc import Iterable
from heapq import nsmallest

from quatrain.algorithms.permutation import order_key
from quatrain.data.observations import fingerprint
from quatrain.data.records import PairRecord


def held_out_prompts(pairs: Iterable[PairRecord], share: float, seed: int) -> frozenset[int]:
    """Return the fingerprints of the prompts whose pairs are held out, as the seed orders them.

    They have `share` of the pairs, or as many more as the last prompt has. Takes eight bytes a pair.
    Empty when share is 0, or all pairs have one prompt.
    """
    seen = array("Q", (fingerprint(pair.prompt) for pair in pairs))
    sizes = Counter(seen)
    wanted = min(int(len(seen) * share), len(seen) - 1)
    if len(sizes) < 2 or wanted < 1:
        return frozenset()
    firsts = list(sizes)  # in the order of their first pairs
    key = order_key("held-out", seed)
    chosen, count = set[int](), 0
    # Each prompt has a pair at least, so as many prompts as pairs are wanted are enough.
    for index in nsmallest(wanted, range(len(firsts)), key=key):
        if count >= wanted or len(chosen) == len(firsts) - 1:
            break
        chosen.add(firsts[index])
        count += sizes[firsts[index]]
    return frozenset(chosen)
