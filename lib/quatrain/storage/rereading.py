"""What looks damaged is read again: a bit may have flipped on the way, and not in the store.

A line that is bad for a moment hits one reading after the other, so there are pauses between them. What is damaged in
the store stays so, and is told as that after some seconds.
"""

import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from quatrain.errors import Corrupt

T = TypeVar("T")

PAUSES = (0.0, 0.2, 0.8, 2.0)
"""Seconds before each further reading of an object whose digest is known."""
SHORT_PAUSES = (0.0, 0.1)
"""The same where somebody waits who comes back by himself: whoever shows jobs, or looks for one to own."""


def reread(read: Callable[[], T], pauses: Sequence[float] | None = None) -> T:
    """The first result of `read` that is no Corrupt. Call it in a worker thread.

    `pauses`: seconds before each further reading, PAUSES unless given. Raises Corrupt when the last one fails, too.
    """
    for pause in PAUSES if pauses is None else pauses:
        try:
            return read()
        except Corrupt:
            time.sleep(pause)
    return read()
