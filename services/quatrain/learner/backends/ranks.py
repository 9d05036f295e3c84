"""The processes of one learner that share its work, as a trainer sees them. Data parallel: every rank holds everything.

The rows of a minibatch are sharded over the ranks, each rank computes the gradients of its own rows, and the gradients
are summed before the norm is taken. Every rank computes all that follows from the same numbers, so the weights stay
equal to the bit.
"""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from quatrain.learner.backends import Trainer


class Ranks:
    """A learner of one process: all work is its own, and there is nothing to sum. `Group` overrides everything."""

    size = 1
    rank = 0

    def shard(self, costs: Sequence[int]) -> list[int]:
        """Return the indices in `costs` of the work that is this rank's."""
        return balance(costs, self.size)[self.rank]

    def all_gather(self, values: Sequence[float]) -> list[list[float]]:
        """Return the values of every rank, in the order of the ranks; each rank gives equally many."""
        return [list(values)]

    def all_reduce_sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its sum over all ranks; all have one dtype and device, and one shape on all ranks."""


ALONE = Ranks()


class RankedTrainer(Trainer, Protocol):
    """A trainer that shares its work with other ranks, which compare their weights after each step."""

    def fingerprint(self) -> int:
        """Return a number that differs where weights differ, but for an unlikely chance."""
        ...


def balance(costs: Sequence[int], size: int) -> list[list[int]]:
    """Return the indices in `costs` for each of `size` ranks, each list ascending, about equal in cost.

    The most expensive item goes first, to the rank with the least so far, of equals to the lowest: the result depends
    on the arguments alone.
    """
    shards: list[list[int]] = [[] for _ in range(size)]
    totals = [0] * size
    for index in sorted(range(len(costs)), key=lambda index: (-costs[index], index)):
        least = min(range(size), key=lambda rank: (totals[rank], rank))
        shards[least].append(index)
        totals[least] += costs[index]
    return [sorted(shard) for shard in shards]
