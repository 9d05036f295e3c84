"""Tells in the log what an owner is doing when it takes long, and how far it is, for people who look at the job."""

import asyncio
import time
from collections.abc import Coroutine
from typing import Any, TypeVar

from quatrain.concurrency import cancel_and_wait
from quatrain.joblog.payloads import PHASE
from quatrain.orchestrator.job.run import JobRun

T = TypeVar("T")

FIRST_SECONDS = 5.0
FIRST_SECONDS_OF_A_STEP = 30.0
"""What happens at every step is told later: the log keeps each word forever."""
MAX_PAUSE_SECONDS = 60.0


class Phase:
    """One piece of work that may take long. It is told after some seconds, then after pauses that double.

    The owner's next event ends it, so nothing has to be taken back::

        phase = Phase(run, "exporting the model")
        model = await phase.during(session.export(files))
    """

    def __init__(self, run: JobRun, name: str, *, every_step: bool = False) -> None:
        self._run = run
        self._name = name
        self._began = time.monotonic()
        self._pause = FIRST_SECONDS_OF_A_STEP if every_step else FIRST_SECONDS
        self._next = self._began + self._pause

    async def tell(self, progress: str) -> None:
        """Say how far it is, when it is time to."""
        now = time.monotonic()
        if now >= self._next:
            await self._run.condition(PHASE, f"{self._name}: {progress}")
            self._pause = min(2 * self._pause, MAX_PAUSE_SECONDS)
            self._next = time.monotonic() + self._pause

    async def during(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of work that does not say how far it is: the time is told instead."""
        task = asyncio.create_task(work)
        try:
            while not (await asyncio.wait({task}, timeout=max(0.0, self._next - time.monotonic())))[0]:
                await self.tell(f"{time.monotonic() - self._began:.0f} s so far")
            return await task
        finally:
            await cancel_and_wait(task)
