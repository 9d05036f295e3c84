"""Models in the memory of a process, and the thread that loads them and computes with them."""

import asyncio
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, Protocol, TypeVar

from quatrain.process.model_thread import ModelThread
from quatrain.refs import ModelRef

Fetch = Callable[[str, str], Path]
"""A function that returns the verified local folder of a model's URI and digest, as `FolderCache.fetch` does."""

T = TypeVar("T")
ModelT = TypeVar("ModelT")
ModelT_co = TypeVar("ModelT_co", covariant=True)


@dataclass(frozen=True)
class WeightsKey:
    """The identity of loaded weights: their dtype and their digest, or their URI where there is no digest."""

    weights: str
    dtype: str

    @classmethod
    def of(cls, ref: ModelRef, dtype: str) -> "WeightsKey":
        """Return the key of a reference."""
        return cls(ref.digest or ref.uri, dtype)


class ModelMemory(Protocol[ModelT_co]):
    """The models in memory; it decides which of them are dropped when another is loaded."""

    def holds(self, job: str, ref: ModelRef, dtype: str) -> bool:
        """Return whether the model is in memory now; by the time of use it may have gone. For any thread."""
        ...

    def get(self, job: str, ref: ModelRef, dtype: str) -> ModelT_co:
        """Return the model, fetched and loaded if it is not held. For the model thread only.

        Raises NotFound, Corrupt, Unavailable (fetching), InvalidInput, InvalidData (loading).
        """
        ...


class ModelRunner(Generic[ModelT]):
    """A thread that computes with models, one call at a time. Downloads run beside it and delay no other call."""

    def __init__(
        self, memory: ModelMemory[ModelT], fetch: Fetch, *, queue_size: int, stuck_after: float = math.inf
    ) -> None:
        """Start the thread; `queue_size` and `stuck_after` are those of `ModelThread`."""
        self._memory = memory
        self._fetch = fetch
        self._thread = ModelThread(queue_size, stuck_after=stuck_after)

    async def run(self, job: str, ref: ModelRef, dtype: str, compute: Callable[[ModelT], T]) -> T:
        """Return `compute(model)` of the model that `ref` names.

        Raises Overloaded (queue full), Unavailable (closed), what `ModelMemory.get` raises, and what `compute` raises.
        """
        if not self._memory.holds(job, ref, dtype):
            await asyncio.to_thread(self._fetch, ref.uri, ref.digest)
        return await self._thread.run(lambda: compute(self._memory.get(job, ref, dtype)))

    async def watch(self) -> None:
        """Raise Unavailable as soon as the thread is stuck; never return."""
        await self._thread.watch()

    def close(self) -> None:
        """Take no more calls; the waiting ones are still computed."""
        self._thread.close()
