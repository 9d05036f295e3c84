"""Orders that depend only on their key: the same on every machine and in every version. No torch.

The order is that of SHA-256 digests, so neither a library's version nor the number of ranks can change it.
"""

from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise


def permutation(n: int, *key: int | str) -> list[int]:
    """Return 0 .. n - 1 in the order that the key determines."""
    return sorted(range(n), key=order_key(*key))


def order_key(*key: int | str) -> Callable[[int], bytes]:
    """Return what sorts indices into the order that the key determines."""
    prefix = "/".join(str(part) for part in key)
    return lambda index: sha256(f"{prefix}/{index}".encode()).digest()


def minibatches(n_sequences: int, n_minibatches: int, seed: int, step: int, epoch: int) -> list[list[int]]:
    """Cut one global permutation of the sequences into minibatches whose sizes differ by one at most.

    With fewer sequences than minibatches each sequence is a minibatch: none is ever empty. A minibatch is distributed
    over ranks after the cut, so the number of ranks does not change what is in it.
    """
    if n_minibatches < 1:
        raise ValueError(f"{n_minibatches} minibatches: at least 1 is needed")
    order = permutation(n_sequences, "minibatches", seed, step, epoch)
    parts = min(n_minibatches, n_sequences)
    bounds = [n_sequences * part // parts for part in range(parts + 1)] if parts else []
    return [order[start:end] for start, end in pairwise(bounds)]
