"""One thread that owns a model: gRPC's event loop never computes, and a model is never touched by two threads.

A computation that hangs, on a GPU that does not answer any more, cannot be ended from outside. So it has to say
`made_progress` now and then; a process whose model thread is silent for too long takes no more calls and ends.
"""

import asyncio
import faulthandler
import math
import os
import queue
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from quatrain.errors import OutOfMemory, Overloaded, Unavailable
from quatrain.telemetry.logging import get_logger

T = TypeVar("T")
_Job = Callable[[], None]
_log = get_logger(__name__)

LEAST_LOOK_SECONDS = 0.05
EXIT_STUCK = 70
EXIT_AFTER_SECONDS = 60.0
"""For a process that ends because its model thread hangs; a device that does not answer can hold up its exit too."""

_here = threading.local()


def made_progress() -> None:
    """The computation of this thread gets on; between its tokens, batches or files. Does nothing in other threads."""
    thread: ModelThread | None = getattr(_here, "model_thread", None)
    if thread is not None:
        thread.made_progress()


class ModelThread:
    """Runs functions one after the other in its own thread, behind a bounded queue.

    `queue_size` calls may wait besides the one that runs; the next is refused with Overloaded at once. A call whose
    awaiting task is cancelled before it began never runs; one that runs goes on to its end. After `stuck_after` seconds
    in which the running call neither ends nor makes progress the thread counts as stuck.
    """

    def __init__(self, queue_size: int, name: str = "model", *, stuck_after: float = math.inf) -> None:
        self._jobs: queue.Queue[_Job | None] = queue.Queue()
        self._slots = threading.BoundedSemaphore(queue_size + 1)
        self._queue_size = queue_size
        self._busy_since: float | None = None
        self._progress = 0.0
        self._stuck_after = stuck_after
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

    def made_progress(self) -> None:
        """The running call gets on. For threads that work on its behalf; others call the function of this name."""
        self._progress = time.monotonic()

    def check_progress(self) -> None:
        """Raises Unavailable when the thread is stuck."""
        busy_since = self._busy_since
        if busy_since is None:
            return
        silent = time.monotonic() - max(busy_since, self._progress)
        if silent > self._stuck_after:
            raise Unavailable(
                f"the model thread has made no progress for {silent:.0f} s (compute.stuck_after is "
                f"{self._stuck_after:g} s): its device hangs, or one piece of work takes longer than that; the process "
                "ends, its log shows where the thread is"
            )

    async def watch(self) -> None:
        """Raises Unavailable as soon as the thread is stuck, else never ends.

        The stacks of all threads go to stderr, and should the process still be there a minute later, it is ended.
        """
        while True:
            await asyncio.sleep(max(min(1.0, self._stuck_after / 4), LEAST_LOOK_SECONDS))
            try:
                self.check_progress()
            except Unavailable as error:
                _log.error(error.message, thread=self._thread.name)
                faulthandler.dump_traceback(sys.__stderr__ or 2)
                end = threading.Timer(EXIT_AFTER_SECONDS, os._exit, (EXIT_STUCK,))
                end.daemon = True
                end.start()
                raise

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
            future.set_exception(told(error))
        else:
            self._finish(started)
            future.set_result(result)

    def _finish(self, started: float) -> None:
        self._busy_since = None
        self._last_seconds = time.monotonic() - started

    def _work(self) -> None:
        _here.model_thread = self
        while (job := self._jobs.get()) is not None:
            try:
                job()
            finally:
                self._slots.release()


def told(error: BaseException) -> BaseException:
    """The error for the caller. Lack of memory is one of ours, without the traceback: its frames hold the tensors."""
    text = str(error)
    # By name and text, because most processes never import torch.
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not memory and not (isinstance(error, RuntimeError) and any(sign in text for sign in _MEMORY_SIGNS)):
        return error
    _log.error("out of memory", exc_info=error)
    lines = text.strip().splitlines()
    return OutOfMemory(f"out of memory: {lines[0][:300] if lines else type(error).__name__}")


_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
