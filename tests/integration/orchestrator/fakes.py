"""Models that are none, and a learner that dies when it is told to."""

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from typing import Any

import numpy as np

from quatrain.errors import QuatrainError, Unavailable
from quatrain.generation.engines.base import Chunk, Completion
from quatrain.generation.engines.fake import FakeEngine
from quatrain.jobspec.reward_section import Source
from quatrain.learner.service import LearnerService
from quatrain.learner.servicer import LearnerServicer
from quatrain.reference.backends.fake import FakeBackend as FakeReferenceBackend
from quatrain.reward.backends.base import SourceScores
from quatrain.reward.backends.fake import FakeBackend as FakeRewardBackend
from quatrain.reward.samples import Batch
from quatrain.v1 import learner_pb2


class AgreeingEngine(FakeEngine):
    """The fake engine, sure of every token to the same degree as the other fakes."""

    def __init__(self, latency: float = 0.0, *, queue_size: int = 32, **settings: Any) -> None:
        super().__init__(latency, queue_size=queue_size, **settings)
        self.before: Callable[[], None] = lambda: None

    def sample(self, chunk: Chunk) -> list[Completion]:
        self.before()
        return [replace(done, logprobs=np.full_like(done.logprobs, -1.0)) for done in super().sample(chunk)]


class AgreeingReference(FakeReferenceBackend):
    """A reference that is as sure of every token as the other fakes."""

    def __init__(self, *, queue_size: int = 32, **settings: Any) -> None:
        super().__init__(queue_size=queue_size, **settings)

    def logprobs(self, prompts: Any, completions: Any, temperature: float) -> list[Any]:
        return [np.full(len(row), -1.0, dtype=np.float32) for row in completions]


class ScriptedReward(FakeRewardBackend):
    """Scores as the fake does, unless the test has an opinion."""

    def __init__(self) -> None:
        self.opinion: Callable[[Batch], tuple[float | None, ...]] | None = None

    async def score(self, source: Source, batch: Batch) -> SourceScores:
        if self.opinion is None:
            return await super().score(source, batch)
        values = self.opinion(batch)
        return SourceScores(values=values, terms={source.name: values}, version="scripted")


class FragileLearner(LearnerServicer):
    """Dies at chosen calls: the session is gone and the caller hears UNAVAILABLE, before or after the work is done."""

    def __init__(self, make: Callable[[], LearnerService]) -> None:
        self._make = make
        super().__init__(make())
        self.calls: dict[str, int] = {}
        self.deaths: dict[tuple[str, int], str] = {}
        self.refusals: dict[str, list[QuatrainError]] = {}
        self.hooks: dict[tuple[str, int], Callable[[], Awaitable[None]]] = {}
        """What happens elsewhere while a call waits to be answered."""
        self.opened: list[str] = []
        self.patience: list[float] = []
        """Seconds that the owners' calls of Open wait for an answer."""

    def die_at(self, method: str, call: int = 1, when: str = "before") -> None:
        self.deaths[method, call] = when

    def die(self) -> None:
        self._service = self._make()

    async def Open(self, request: learner_pb2.OpenRequest, context: Any) -> learner_pb2.OpenResponse:
        death = self._begin("Open")
        self.patience.append(context.time_remaining())
        answer = await super().Open(request, context)
        self._end(death)
        self.opened.append(request.token.job)
        return answer

    async def Step(self, request: Any, context: Any) -> AsyncIterator[learner_pb2.StepResponse]:
        async for message in self._fragile("Step", super().Step(request, context)):
            yield message

    async def Publish(self, request: Any, context: Any) -> AsyncIterator[learner_pb2.PublishResponse]:
        async for message in self._fragile("Publish", super().Publish(request, context)):
            yield message

    async def Save(self, request: Any, context: Any) -> AsyncIterator[learner_pb2.SaveResponse]:
        async for message in self._fragile("Save", super().Save(request, context)):
            yield message

    async def Export(self, request: Any, context: Any) -> AsyncIterator[learner_pb2.ExportResponse]:
        async for message in self._fragile("Export", super().Export(request, context)):
            yield message

    async def Close(self, request: learner_pb2.CloseRequest, context: Any) -> learner_pb2.CloseResponse:
        self._begin("Close")
        return await super().Close(request, context)

    async def _fragile(self, method: str, messages: AsyncIterator[Any]) -> AsyncIterator[Any]:
        death = self._begin(method)
        hook = self.hooks.pop((method, self.calls[method]), None)
        if hook is not None:
            await hook()
        async for message in messages:
            if death and message.WhichOneof("kind") != "heartbeat":
                self._end(death)
            yield message

    def _begin(self, method: str) -> str:
        self.calls[method] = self.calls.get(method, 0) + 1
        if self.refusals.get(method):
            raise self.refusals[method].pop(0)
        death = self.deaths.get((method, self.calls[method]), "")
        if death == "before":
            self._end(death)
        return death

    def _end(self, death: str) -> None:
        if death:
            self.die()
            raise Unavailable("the learner died")
