"""The processes of one learner that share its work, as a trainer sees them. Data parallel: every rank holds everything.

A minibatch's rows are dealt to the ranks, each computes the gradients of its own, and the sums are added up before the
norm is taken. All that follows is computed by every rank from the same numbers, so the weights stay equal to the bit.
"""

from collections.abc import Sequence

from torch import Tensor


class Ranks:
    """A learner of one process: all work is its own, and there is nothing to add up. Groups override everything."""

    size = 1
    number = 0

    def share(self, costs: Sequence[int]) -> list[int]:
        """The places in `costs` of the work that is this rank's."""
        return deal(costs, self.size)[self.number]

    def gather(self, values: Sequence[float]) -> list[list[float]]:
        """The values of every rank, in the order of the ranks; each gives as many."""
        return [list(values)]

    def add_up(self, tensors: Sequence[Tensor]) -> None:
        """Puts the sum over all ranks in the place of each tensor; all share dtype and device, and fit on all ranks."""


ALONE = Ranks()


def deal(costs: Sequence[int], size: int) -> list[list[int]]:
    """The places in `costs` for each of `size` ranks, each in rising order, about equal in cost.

    The dearest goes first, to whoever has least, of equals to the lowest rank: a function of its arguments alone.
    """
    shares: list[list[int]] = [[] for _ in range(size)]
    totals = [0] * size
    for place in sorted(range(len(costs)), key=lambda place: (-costs[place], place)):
        least = min(range(size), key=lambda rank: (totals[rank], rank))
        shares[least].append(place)
        totals[least] += costs[place]
    return [sorted(share) for share in shares]
