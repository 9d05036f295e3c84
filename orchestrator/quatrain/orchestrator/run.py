"""One owned job: the owner's pen (the event log under this epoch and attempt) and what the stages share."""

import asyncio
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quatrain.data.tables import PromptTable, read_prompts

from quatrain.errors import Fenced, QuatrainError, Unavailable
from quatrain.joblog import Event, JobLog, JobView, LogConflict
from quatrain.orchestrator.collector import Collector
from quatrain.orchestrator.learners import LearnerPool, LearnerSession
from quatrain.orchestrator.plan import FolderRef, Plan, TableRef
from quatrain.orchestrator.services import Services
from quatrain.queue import RolloutQueue
from quatrain.storage import ObjectStore
from quatrain.storage.folders import FolderCache, read_object
from quatrain.telemetry.logging import get_logger
from quatrain.text import Tokenizer
from quatrain.v1 import common_pb2, learner_pb2

log = get_logger("run")

STORE_RETRY_SECONDS = 2.0
STAGE_IDS = {"sft": learner_pb2.STAGE_SFT, "reward": learner_pb2.STAGE_REWARD, "ppo": learner_pb2.STAGE_PPO}


class JobCancelled(QuatrainError):
    """Somebody asked for the end of the job."""

    reason = "CANCELLED"


class JobFailed(QuatrainError):
    """The job cannot go on."""

    reason = "JOB_FAILED"


@dataclass(frozen=True)
class Surroundings:
    """What all jobs of an orchestrator share."""

    name: str
    store: ObjectStore
    queue: RolloutQueue
    services: Services
    learners: LearnerPool
    folders: FolderCache
    scratch: Path


@dataclass
class JobRun:
    """The state of one owned job in memory. Everything that must last is in the log."""

    plan: Plan
    around: Surroundings
    log: JobLog
    epoch: int
    collector: Collector
    session: LearnerSession | None = None
    attempt: int = 0
    exact_logprobs: bool = False
    pen: asyncio.Lock = field(default_factory=asyncio.Lock)
    tables: dict[str, PromptTable] = field(default_factory=dict)
    tokenizer_loaded: Tokenizer | None = None

    @property
    def view(self) -> JobView:
        """The folded log."""
        return self.log.view

    async def append(self, kind: str, data: dict[str, Any]) -> Event:
        """Writes an owner event. Intents that came between are obeyed later; a higher epoch raises Fenced.

        While the store is away the same event is tried again: its nonce tells whether an earlier try has landed.
        """
        event = Event(type=kind, data=data, actor=self.around.name, epoch=self.epoch, attempt=self.attempt)
        async with self.pen:
            while True:
                try:
                    return await asyncio.to_thread(self.log.append, event)
                except LogConflict:
                    self.check_ownership()
                except Unavailable as error:
                    log.warning("object store is away, event kept", job=self.plan.job, kind=kind, error=error.message)
                    await asyncio.sleep(STORE_RETRY_SECONDS)

    async def refresh(self) -> None:
        """Folds what others wrote."""
        async with self.pen:
            await asyncio.to_thread(self.log.refresh)
        self.check_ownership()

    def check_ownership(self) -> None:
        """Raises Fenced when another owner has taken the job."""
        if self.view.epoch > self.epoch:
            raise Fenced(f"job {self.plan.job} has a newer owner (epoch {self.view.epoch}, ours {self.epoch})")

    def obey(self) -> None:
        """At a step boundary: raises JobCancelled when somebody asked for the end."""
        wish = self.view.intents.get("cancel")
        if wish is not None:
            raise JobCancelled(wish.get("reason") or "cancelled")

    async def set_state(self, state: str, reason: str = "") -> None:
        """Changes the job's state, unless it is that already."""
        if self.view.state != state:
            await self.append("state_changed", {"state": state, "reason": reason})

    async def condition(self, name: str, message: str | None) -> None:
        """Sets or lifts a condition, unless it stands like that already."""
        if self.view.conditions.get(name) != message:
            await self.append("condition", {"name": name, "message": message})

    async def prompts(self, table: TableRef) -> PromptTable:
        """A prompt table, read once."""
        if table.sha256 not in self.tables:
            data = await asyncio.to_thread(read_object, self.around.store, table.key, table.sha256)
            self.tables[table.sha256] = read_prompts(data)
        return self.tables[table.sha256]

    async def tokenizer(self) -> Tokenizer:
        """The policy's tokenizer, loaded once."""
        if self.tokenizer_loaded is None:
            folder = await asyncio.to_thread(self.around.folders.fetch, self.plan.model.uri, self.plan.model.digest)
            self.tokenizer_loaded = await asyncio.to_thread(Tokenizer.load, folder)
        return self.tokenizer_loaded

    def sft_model(self) -> FolderRef:
        """The SFT model: trained in this job, else the base model."""
        done = self.view.stage_results.get("sft")
        return self.plan.model if done is None else FolderRef.from_json(done["model"])

    def token(self) -> common_pb2.OwnerToken:
        """Proof of ownership for the learner."""
        return common_pb2.OwnerToken(job=self.plan.job, epoch=self.epoch, attempt=self.attempt)
