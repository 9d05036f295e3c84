"""Pauses between the tries of an operation that may fail for a while."""

import random
from dataclasses import dataclass

_MAX_DOUBLINGS = 60


@dataclass(frozen=True)
class Backoff:
    """Pauses in seconds: the first after one failure, doubled with each further failure in a row up to the longest.

    `jitter` spreads each pause evenly by this share of it, up and down, so that many clients do not return in step.

        await asyncio.sleep(Backoff(first=0.2, longest=5.0).pause(failures))
    """

    first: float
    longest: float
    jitter: float = 0.0

    def pause(self, failures: int) -> float:
        """Return the seconds to wait after so many failures in a row, one at least."""
        doubled = self.first * 2.0 ** min(max(failures, 1) - 1, _MAX_DOUBLINGS)
        return min(doubled, self.longest) * random.uniform(1.0 - self.jitter, 1.0 + self.jitter)
