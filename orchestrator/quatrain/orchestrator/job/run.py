"""One owned job: its log, written under this epoch and attempt, and what the stages share."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from quatrain.concurrency import cancel_and_wait, uncancellable
from quatrain.data.tables import PromptTable, read_prompts
from quatrain.errors import TRANSIENT_ERRORS, Corrupt, Fenced, QuatrainError, Unavailable
from quatrain.joblog import Event, JobLog, JobView, LogConflict
from quatrain.joblog.payloads import ConditionChanged, LearnerOpened, Payload, StateChanged
from quatrain.orchestrator.job.context import OrchestratorContext
from quatrain.orchestrator.peers.learner_session import LearnerSession, OwnerToken
from quatrain.orchestrator.plan import Plan
from quatrain.orchestrator.rollout.collector import Collector
from quatrain.refs import ModelRef, TableRef
from quatrain.stages import SFT
from quatrain.storage.corrupt_reads import RETRY_PAUSES
from quatrain.storage.folders import read_object
from quatrain.telemetry.logging import get_logger
from quatrain.text import Tokenizer

T = TypeVar("T")
log = get_logger("run")

STORE_RETRY_SECONDS = 2.0
PEER_RETRY_SECONDS = 2.0
UNAVAILABLE = "unavailable"
"""Name of the condition that says what a job waits for."""


class JobCancelled(QuatrainError):
    """Somebody asked for the end of the job."""

    reason = "CANCELLED"


class JobPaused(QuatrainError):
    """Somebody asked for a pause of the job."""

    reason = "PAUSED"


class JobFailed(QuatrainError):
    """The job cannot go on."""

    reason = "JOB_FAILED"


@dataclass
class JobRun:
    """The state of one owned job in memory. Everything that must last is in the log."""

    plan: Plan
    context: OrchestratorContext
    log: JobLog
    epoch: int
    collector: Collector
    worked_before: float = 0.0
    """Seconds that earlier owners worked on the job."""
    started: float = field(default_factory=time.monotonic)
    session: LearnerSession | None = None
    learner_left: bool = False
    """Whether a learner may be open for the job that no owner talks to any more."""
    exact_logprobs: bool = False
    append_lock: asyncio.Lock = field(default_factory=asyncio.Lock)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set while somebody asks for the end or for a pause."""
    released: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when there are data to delete."""
    tables: dict[str, PromptTable] = field(default_factory=dict)
    tokenizer_loaded: Tokenizer | None = None

    def elapsed(self) -> float:
        """Return the seconds that owners have worked on the job, which limits.wall_time bounds."""
        return self.worked_before + time.monotonic() - self.started

    @property
    def view(self) -> JobView:
        """Return the folded log."""
        return self.log.view

    @property
    def attempt(self) -> int:
        """Return the newest attempt in the log; while we own the job it is ours."""
        return self.view.attempt

    async def append(self, payload: Payload) -> Event:
        """Write an owner event. Intents that came in between are applied later; a higher epoch raises Fenced.

        While the store is away the same event is tried again: its nonce tells whether an earlier try has landed. That
        the store was away is written after the event.
        """
        started, away = time.monotonic(), ""
        async with self.append_lock:
            # Made inside the lock: an attempt that was opened while we waited for it counts.
            attempt = self.view.attempt + isinstance(payload, LearnerOpened)
            event = Event(payload, actor=self.context.name, epoch=self.epoch, attempt=attempt)
            while True:
                try:
                    landed = await self._on_the_log(lambda: self.log.append(event))
                    break
                except LogConflict:
                    self.check_ownership()
                except Unavailable as error:
                    away = self.context.troubles[self.plan.job] = error.message
                    log.warning("object store is away, event kept", job=self.plan.job, type=payload.TYPE, error=away)
                    await asyncio.sleep(STORE_RETRY_SECONDS)
        self.context.troubles.pop(self.plan.job, None)
        unsaid = away and UNAVAILABLE not in self.view.conditions and not self.view.finished
        saying = isinstance(payload, ConditionChanged) and payload.name == UNAVAILABLE
        if unsaid and not saying:
            await self.condition(UNAVAILABLE, f"for {time.monotonic() - started:.0f} s: {away}")
            await self.condition(UNAVAILABLE, None)
        return landed

    async def refresh(self) -> None:
        """Fold what others wrote. Raises Fenced when another owner has taken the job."""
        async with self.append_lock:
            await self._on_the_log(self.log.refresh)
        self.check_ownership()

    async def _on_the_log(self, work: Callable[[], T]) -> T:
        """Return the result of work on the log, which may be done twice.

        An event that looks damaged is read again for some seconds before it ends the job: the stored one may be sound.
        """
        for pause in RETRY_PAUSES:
            try:
                return await uncancellable(asyncio.to_thread(work))
            except Corrupt as error:
                log.warning("event looks damaged, reading it again", job=self.plan.job, error=error.message)
                await asyncio.sleep(pause)
        return await uncancellable(asyncio.to_thread(work))

    def check_ownership(self) -> None:
        """Raise Fenced when another owner has taken the job."""
        if self.view.epoch > self.epoch:
            raise Fenced(f"job {self.plan.job} has a newer owner (epoch {self.view.epoch}, ours {self.epoch})")

    def raise_if_asked_to_stop(self) -> None:
        """Raise JobCancelled or JobPaused when somebody asked for that; called at step boundaries."""
        intents = self.view.intents
        if intents.cancel is not None:
            raise JobCancelled(intents.cancel.reason or "cancelled")
        if intents.pause is not None:
            raise JobPaused(intents.pause.reason or "paused")

    async def unless_stopped(self, work: Coroutine[Any, Any, T]) -> T:
        """Return the result of something that may wait for long.

        Raises as `raise_if_asked_to_stop` does, as soon as somebody asks for it.
        """
        task = asyncio.ensure_future(work)
        try:
            while not task.done():
                await self._until_stop_is_asked(task)
                if not task.done():
                    self.raise_if_asked_to_stop()
                    self.stopping.clear()  # The intent was taken back.
            return await task
        finally:
            await cancel_and_wait(task)

    async def _until_stop_is_asked(self, task: asyncio.Future[Any]) -> None:
        """Wait until `task` is done or somebody asks for the end or a pause."""
        asked: asyncio.Future[Any] = asyncio.ensure_future(self.stopping.wait())
        try:
            await asyncio.wait({task, asked}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(asked)

    async def retry_while_unavailable(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of an idempotent call; while a peer, the store or the queue is away, say so and wait.

        Raises as `raise_if_asked_to_stop` does when somebody asks for the end or a pause meanwhile.
        """
        while True:
            try:
                result = await call()
            except TRANSIENT_ERRORS as error:
                await self.set_unavailable(error)
                await asyncio.sleep(PEER_RETRY_SECONDS)
                self.raise_if_asked_to_stop()
            else:
                await self.condition(UNAVAILABLE, None)
                return result

    async def retry_in_thread(self, call: Callable[..., T], *arguments: Any) -> T:
        """Run a call that blocks in a thread, as `retry_while_unavailable` does."""
        return await self.retry_while_unavailable(lambda: asyncio.to_thread(call, *arguments))

    async def set_unavailable(self, error: QuatrainError) -> None:
        """Set the condition, once for each absence: the next message may differ in a number only."""
        log.warning("waiting", job=self.plan.job, error=error.message)
        if UNAVAILABLE not in self.view.conditions:
            await self.condition(UNAVAILABLE, error.message)

    async def set_state(self, state: str, reason: str = "") -> None:
        """Change the job's state, unless it is that already."""
        if self.view.state != state:
            await self.append(StateChanged(state=state, reason=reason))

    async def condition(self, name: str, message: str | None) -> None:
        """Set or lift a condition, unless the log has it so already."""
        if self.view.conditions.get(name) != message:
            await self.append(ConditionChanged(name=name, message=message))

    async def prompts(self, table: TableRef) -> PromptTable:
        """Return a prompt table, which is read once."""
        if table.sha256 not in self.tables:
            data = await self.retry_in_thread(read_object, self.context.store, table.key, table.sha256)
            self.tables[table.sha256] = await asyncio.to_thread(read_prompts, data)
        return self.tables[table.sha256]

    async def tokenizer(self) -> Tokenizer:
        """Return the policy's tokenizer, which is loaded once."""
        if self.tokenizer_loaded is None:
            model, folders = self.plan.pinned.model, self.context.folders
            folder = await self.retry_in_thread(folders.fetch, model.uri, model.digest)
            self.tokenizer_loaded = await asyncio.to_thread(Tokenizer.load, folder)
        return self.tokenizer_loaded

    def sft_model(self) -> ModelRef:
        """Return the SFT model: the one trained in this job, else the base model."""
        done = self.view.stage_results.get(SFT.name)
        return self.plan.pinned.model if done is None else done.model

    async def abandon_session(self) -> None:
        """Leave the learner, if there is one, without closing it: it is lost, or the next opening takes it over."""
        if self.session is not None:
            await self.session.abandon()
            self.session, self.learner_left = None, True

    async def close_session(self) -> None:
        """Give the learner back, if there is one: ours, or one that was left."""
        if self.session is not None:
            await self.session.close()
        elif self.learner_left:
            await self.context.learners.free(self.plan.job)
        self.session, self.learner_left = None, False

    def token(self) -> OwnerToken:
        """Return the proof of ownership for the learner."""
        return OwnerToken(job=self.plan.job, epoch=self.epoch, attempt=self.attempt)
