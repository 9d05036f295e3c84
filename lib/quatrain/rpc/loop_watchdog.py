"""Watches an event loop from a thread: who holds it, and for how long.

While one task computes, no other answers: calls run into their deadlines, leases and heartbeats are missed. So nothing
may hold the loop for longer than `HELD_SECONDS`, and what does is told with its stack while it does.

The thread asks the loop for a beat every `BEAT_SECONDS`. A late beat alone proves nothing: on a busy machine the whole
process waits for a processor. What counts is the time that the loop's own thread has computed since the beat was asked
for; and, for what blocks without computing, `BLOCKED_SECONDS` without a beat.
"""

import asyncio
import contextlib
import sys
import threading
import time
import traceback
from collections.abc import Iterator

from quatrain.telemetry import metrics
from quatrain.telemetry.logging import get_logger

log = get_logger("event_loop")

HELD = metrics.histogram(
    "event_loop_held_seconds", "Seconds that something held the event loop, where it was more than 50 ms"
)

BEAT_SECONDS = 0.025
HELD_SECONDS = 0.05
BLOCKED_SECONDS = 2.0
WARNING_SECONDS = 10.0
"""Least time between two warnings of a process; the metric counts every time."""
DEEPEST_FRAMES = 12


class LoopWatchdog:
    """Watches the loop that it is made in, until `close`. See the module.

    >>> with watched_loop():
    ...     await serve()
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self._clock = time.pthread_getcpuclockid(self._loop_thread)
        self._beat = threading.Event()
        self._closed = threading.Event()
        self._warned = -WARNING_SECONDS
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        self._thread.join(timeout=1.0)

    def _watch(self) -> None:
        while not self._closed.wait(BEAT_SECONDS):
            self._beat.clear()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # The loop is closed.
                return
            self._await_beat()

    def _await_beat(self) -> None:
        """Return when the loop has beaten, after it was measured how long something held it."""
        started, computed = time.monotonic(), self._computed()
        stack = ""
        while not self._beat.wait(HELD_SECONDS / 2):
            if self._closed.is_set():
                return
            if not stack and self._held(started, computed):
                stack = self._stack()
        if stack or self._held(started, computed):
            self._tell(self._seconds(started, computed), stack or "it ended before it could be looked at")

    def _held(self, started: float, computed: float) -> bool:
        return self._computed() - computed > HELD_SECONDS or time.monotonic() - started > BLOCKED_SECONDS

    def _seconds(self, started: float, computed: float) -> float:
        """Return how long the loop was held: what its thread computed, or all of the time when it hardly did."""
        waited = time.monotonic() - started
        return waited if waited > BLOCKED_SECONDS else self._computed() - computed

    def _computed(self) -> float:
        return time.clock_gettime(self._clock)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return ""
        return "".join(traceback.format_list(traceback.extract_stack(frame)[-DEEPEST_FRAMES:])).rstrip()

    def _tell(self, seconds: float, stack: str) -> None:
        HELD.observe(seconds)
        now = time.monotonic()
        if now - self._warned >= WARNING_SECONDS:
            self._warned = now
            log.warning("the event loop was held", seconds=round(seconds, 3), stack=stack)


@contextlib.contextmanager
def watched_loop() -> Iterator[LoopWatchdog]:
    """Watch the running loop inside the block."""
    watchdog = LoopWatchdog()
    try:
        yield watchdog
    finally:
        watchdog.close()
