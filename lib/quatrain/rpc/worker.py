"""One thread that owns a model: gRPC's event loop never computes, and a model is never touched by two threads."""

import asyncio
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from quatrain.errors import Overloaded, Unavailable

T = TypeVar("T")
_Job = Callable[[], None]


class ModelThread:
    """Runs functions one after the other in its own thread, behind a bounded queue.

    `queue_size` calls may wait besides the one that runs; the next is refused with Overloaded at once. A call whose
    awaiting task is cancelled before it began never runs; one that runs goes on to its end.
    """

    def __init__(self, queue_size: int, name: str = "model") -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._slots = threading.BoundedSemaphore(queue_size + 1)
        self._queue_size = queue_size
        self._busy_since: float | None = None
        self._last_seconds = 0.5
        self._closed = False
        # A daemon, so that a process told to stop is not held back by a computation that nobody waits for.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy_since(self) -> float | None:
        """Monotonic time at which the running call began; None when idle."""
        return self._busy_since

    @property
    def waiting(self) -> int:
        """Calls that wait behind the running one."""
        return self._jobs.qsize()

    async def run(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
        """Result of `function(*args, **kwargs)` run in the thread.

        Raises Overloaded when the queue is full, Unavailable after `close`, and whatever the function raises.
        """
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> "Future[T]":
        """As `run`, for callers outside an event loop or that keep the future."""
        if self._closed:
            raise Unavailable("the process is stopping")
        if not self._slots.acquire(blocking=False):
            raise Overloaded(
                f"{self._queue_size} calls already wait for the model; try again later",
                retry_after=min(max(self._last_seconds, 0.1), 5.0),
            )
        future: Future[T] = Future()

        def job() -> None:
            if future.set_running_or_notify_cancel():
                self._compute(future, function, args, kwargs)

        self._jobs.put(job)
        return future

    def close(self, wait: float = 0.0) -> None:
        """Takes no more calls; the running and the waiting ones are finished, for which it waits `wait` seconds."""
        self._closed = True
        self._jobs.put(None)
        if wait:
            self._thread.join(timeout=wait)

    def _compute(self, future: "Future[T]", function: Callable[..., T], args: Any, kwargs: Any) -> None:
        started = self._busy_since = time.monotonic()
        try:
            result = function(*args, **kwargs)
        except BaseException as error:  # noqa: BLE001 - handed to the caller, whose task raises it
            self._finish(started)
            future.set_exception(error)
        else:
            self._finish(started)
            future.set_result(result)

    def _finish(self, started: float) -> None:
        self._busy_since = None
        self._last_seconds = time.monotonic() - started

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                self._slots.release()
