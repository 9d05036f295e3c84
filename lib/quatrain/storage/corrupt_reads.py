"""Repeats reads that look corrupt: a bit may have flipped on the way, and not in the store.

A bad connection spoils several reads in a row, so there are pauses between them. An object that is corrupt in the store
is reported after some seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from quatrain.errors import Corrupt

T = TypeVar("T")

RETRY_PAUSES = (0.0, 0.2, 0.8, 2.0)
"""Seconds before each further reading of an object whose digest is known."""
QUICK_RETRY_PAUSES = (0.0, 0.1)
"""The same for callers that ask again by themselves, like those that list jobs or look for one to own."""


def retry_corrupt_reads(read: Callable[[], T], pauses: Sequence[float] | None = None) -> T:
    """Return the first result of `read` that is not Corrupt. Call it in a worker thread.

    `pauses`: seconds before each further reading, by default RETRY_PAUSES. Raises Corrupt if the last one fails, too.
    """
    for pause in RETRY_PAUSES if pauses is None else pauses:
        try:
            return read()
        except Corrupt:
            time.sleep(pause)
    return read()
