"""One thread that owns a model: gRPC's event loop never computes, and a model is never touched by two threads.

A computation that hangs, for example on a GPU that does not answer any more, cannot be ended from outside. Computations
therefore call `made_progress` as they go; a process whose model thread is silent for too long takes no more calls and
ends.
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

MIN_POLL_SECONDS = 0.05
EXIT_STUCK = 70
EXIT_AFTER_SECONDS = 60.0
"""Seconds after which a process whose model thread hangs is ended by force: the device can block its exit, too."""

_here = threading.local()


def made_progress() -> None:
    """Note that the computation of this model thread makes progress. Does nothing in other threads."""
    thread: ModelThread | None = getattr(_here, "model_thread", None)
    if thread is not None:
        thread.made_progress()


class ModelThread:
    """A thread that runs functions one after the other, behind a bounded queue.

    `queue_size` calls may wait besides the one that runs; the next is refused with Overloaded at once. A call whose
    awaiting task is cancelled before the call began never runs; one that runs goes on to its end. The thread counts as
    stuck when the running call has neither ended nor made progress for `stuck_after` seconds.
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
        # A daemon, so that a process that has to stop is not delayed by a computation that nobody waits for.
        self._thread = threading.Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    @property
    def busy_since(self) -> float | None:
        """Return the monotonic time at which the running call began; None when idle."""
        return self._busy_since

    @property
    def waiting(self) -> int:
        """Return the number of calls that wait behind the running one."""
        return self._jobs.qsize()

    def made_progress(self) -> None:
        """Note that the running call makes progress. For its helper threads; others call the function of this name."""
        self._progress = time.monotonic()

    def check_progress(self) -> None:
        """Raise Unavailable when the thread is stuck."""
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
        """Raise Unavailable as soon as the thread is stuck; never return.

        Before that, the stacks of all threads are written to stderr. A process that is still there a minute later is
        ended by force.
        """
        while True:
            await asyncio.sleep(max(min(1.0, self._stuck_after / 4), MIN_POLL_SECONDS))
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
        """Run `function(*args, **kwargs)` in the thread and return its result.

        Raises Overloaded when the queue is full, Unavailable after `close`, and whatever the function raises.
        """
        return await asyncio.wrap_future(self.submit(function, *args, **kwargs))

    def submit(self, function: Callable[..., T], *args: Any, **kwargs: Any) -> "Future[T]":
        """Do as `run` does, for callers that have no event loop or that keep the future."""
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
        """Take no more calls, and wait up to `wait` seconds until those that run or wait have finished."""
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
            future.set_exception(as_quatrain_error(error))
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


def as_quatrain_error(error: BaseException) -> BaseException:
    """Return the caller's error: OutOfMemory without the traceback, whose frames hold the tensors; else `error`."""
    text = str(error)
    # By name and text, because most processes never import torch.
    memory = isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError"
    if not memory and not (isinstance(error, RuntimeError) and any(sign in text for sign in _MEMORY_SIGNS)):
        return error
    _log.error("out of memory", exc_info=error)
    lines = text.strip().splitlines()
    return OutOfMemory(f"out of memory: {lines[0][:300] if lines else type(error).__name__}")


_MEMORY_SIGNS = ("out of memory", "can't allocate memory", "not enough memory", "CUBLAS_STATUS_ALLOC_FAILED")
