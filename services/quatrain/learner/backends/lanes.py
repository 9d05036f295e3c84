"""Two independent computations side by side on the cores of one CPU.

Policy and value model never wait for each other inside an epoch, and their operations are too short to be shared among
cores without loss: two lanes of half the threads each keep both cores busier than one lane of all threads. Each lane
always has the same threads, so the results do not depend on their timing.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from typing import TypeVar

import torch

from quatrain.learner.backends.ranks import ALONE, Ranks

A = TypeVar("A")
B = TypeVar("B")


class TwoLanes:
    """Two lanes for pairs of computations, which are one after the other on a GPU, with one thread, and with ranks.

    `parallel` False runs them one after the other everywhere, each with all threads.
    """

    def __init__(self, device: torch.device, ranks: Ranks = ALONE, *, parallel: bool = True) -> None:
        self._threads = torch.get_num_threads()
        # Collective operations need one order on all ranks, which two lanes would not keep.
        self._parallel = parallel and device.type == "cpu" and self._threads > 1 and ranks.size == 1

    def run(self, first: Callable[[], A], second: Callable[[], B]) -> tuple[A, B]:
        """Return both results. Raises what either raises once both have ended; the error of `first` has precedence."""
        if not self._parallel:
            return first(), second()
        with ThreadPoolExecutor(1, thread_name_prefix="lane") as pool:
            # The same number in both: the library of matrix products has one number for the whole process.
            half = self._threads // 2
            other = pool.submit(_with_threads, half, second)
            try:
                result = _with_threads(half, first)
            finally:
                wait([other])
                torch.set_num_threads(self._threads)
            return result, other.result()


def _with_threads(threads: int, work: Callable[[], A]) -> A:
    # The number of threads is a setting of the calling thread.
    torch.set_num_threads(threads)
    return work()
