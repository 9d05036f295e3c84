"""Watches an event loop from a thread: what blocks it, and for how long.

While one task computes, no other answers: calls run into their deadlines, leases and heartbeats are missed. So nothing
may hold the loop for longer than `HELD_SECONDS`; whatever does is logged with its stack while it still holds it.

The thread asks the loop for a beat every `BEAT_SECONDS`. A late beat alone proves nothing: on a busy machine the whole
process waits for a processor. So time counts as held only

- `computing`: the loop's own thread has computed for so long since the beat was asked for;
- `interpreter`: no thread could run, this one neither, while the process computed: a call of another thread kept the
  interpreter to itself;
- `blocked`: no beat came for `BLOCKED_SECONDS`, and the loop's thread did not compute: it is in a call that blocks.
"""

import asyncio
import contextlib
import gc
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from quatrain.telemetry import metrics
from quatrain.telemetry.logging import get_logger

log = get_logger("event_loop")

HELD = metrics.histogram(
    "event_loop_held_seconds", "Seconds that something held the event loop, where it was more than 50 ms", ("cause",)
)

BEAT_SECONDS = 0.025
HELD_SECONDS = 0.05
BLOCKED_SECONDS = 2.0
WARNING_SECONDS = 10.0
"""Shortest time between two warnings of a process; the metric counts every time."""
SCHEDULING = Path("/proc/thread-self/schedstat")
"""The file in which Linux keeps how many nanoseconds a thread has run, and has waited for a processor."""
DEEPEST_FRAMES = 12


@dataclass
class _Hold:
    """One wait for a beat."""

    began: float
    computed: float
    collected: float
    stack: str = ""


class LoopWatchdog:
    """A watch over the event loop in which it is made, until `close`; the module says what counts as held.

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
        self._collected = 0.0
        """Seconds of garbage collection, in whichever thread it happened: it keeps the interpreter."""
        self._collection_began = 0.0
        self._kept = 0.0
        """Longest time since the last beat in which no thread could run, in seconds."""
        gc.callbacks.append(self._note_collection)
        self._thread = threading.Thread(target=self._watch, name="loop-watchdog", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._closed.set()
        gc.callbacks.remove(self._note_collection)
        self._thread.join(timeout=1.0)

    def _note_collection(self, phase: str, info: dict[str, int]) -> None:
        now = time.thread_time()
        if phase == "start":
            self._collection_began = now
        else:
            self._collected += now - self._collection_began

    def _watch(self) -> None:
        while not self._wait(self._closed, BEAT_SECONDS):
            self._beat.clear()
            try:
                self._loop.call_soon_threadsafe(self._beat.set)
            except RuntimeError:  # The loop is closed.
                return
            self._await_beat()

    def _await_beat(self) -> None:
        """Wait until the loop has beaten, and measure what held it and for how long."""
        hold = _Hold(time.monotonic(), self._computed(), self._collected)
        beaten = False
        while not beaten:
            beaten = self._wait(self._beat, HELD_SECONDS / 2)
            if self._closed.is_set():
                return
            if not beaten and not hold.stack and (self._cause(hold) or self._blocked(hold)):
                hold.stack = self._stack()
        waited = time.monotonic() - hold.began
        cause = self._cause(hold) or ("blocked" if hold.stack else "")
        if cause:
            held = {"computing": self._computed() - hold.computed, "interpreter": self._kept, "blocked": waited}
            self._report(cause, held[cause], hold)
        self._kept = 0.0

    def _wait(self, event: threading.Event, seconds: float) -> bool:
        """Wait for an event, and notice when this thread could not run although a processor was free for it."""
        asked, process, unscheduled = time.monotonic(), time.process_time(), _unscheduled()
        there = event.wait(seconds)
        late = time.monotonic() - asked - seconds - (_unscheduled() - unscheduled)
        # The thread that keeps the interpreter may wait for a processor, too, so only computed time is counted.
        self._kept = max(self._kept, min(late, time.process_time() - process))
        return there

    def _cause(self, hold: _Hold) -> str:
        if self._computed() - hold.computed > HELD_SECONDS:
            return "computing"
        return "interpreter" if self._kept > HELD_SECONDS else ""

    def _blocked(self, hold: _Hold) -> bool:
        return time.monotonic() - hold.began > BLOCKED_SECONDS

    def _computed(self) -> float:
        return time.clock_gettime(self._clock)

    def _stack(self) -> str:
        frame = sys._current_frames().get(self._loop_thread)
        if frame is None:
            return ""
        return "".join(traceback.format_list(traceback.extract_stack(frame)[-DEEPEST_FRAMES:])).rstrip()

    def _report(self, cause: str, seconds: float, hold: _Hold) -> None:
        HELD.labels(cause).observe(seconds)
        now = time.monotonic()
        if now - self._warned >= WARNING_SECONDS:
            self._warned = now
            log.warning(
                "the event loop was held",
                cause=cause,
                seconds=round(seconds, 3),
                garbage_collection=round(self._collected - hold.collected, 3),
                stack=hold.stack or "it ended before it could be looked at",
            )


def _unscheduled() -> float:
    """Return the seconds that this thread was ready and had no processor; 0 where the system does not report it."""
    try:
        return int(SCHEDULING.read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


@contextlib.contextmanager
def watched_loop() -> Iterator[LoopWatchdog]:
    """Watch the running loop inside the block."""
    watchdog = LoopWatchdog()
    try:
        yield watchdog
    finally:
        watchdog.close()
