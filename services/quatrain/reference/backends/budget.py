"""Which models are in memory: as many as a budget of bytes holds; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, TypeVar

from typing_extensions import override

from quatrain.models.model_runner import Fetch, ModelMemory, WeightsKey
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger

_log = get_logger("quatrain.reference")


class Sized(Protocol):
    """A loaded model that knows its size."""

    @property
    def size_bytes(self) -> int:
        """Return the memory that the weights take, in bytes."""
        ...


SizedT = TypeVar("SizedT", bound=Sized)


class MemoryBudget(ModelMemory[SizedT]):
    """Models of all jobs together. One that exceeds the budget alone is held alone."""

    def __init__(self, load: Callable[[Path, str], SizedT], fetch: Fetch, memory_bytes: int) -> None:
        self._load = load
        self._fetch = fetch
        self._memory_bytes = memory_bytes
        self._models: OrderedDict[WeightsKey, SizedT] = OrderedDict()

    @override
    def holds(self, job: str, ref: ModelRef, dtype: str) -> bool:
        return WeightsKey.of(ref, dtype) in self._models

    @override
    def get(self, job: str, ref: ModelRef, dtype: str) -> SizedT:
        key = WeightsKey.of(ref, dtype)
        if key not in self._models:
            folder = self._fetch(ref.uri, ref.digest)
            # The weights on disk say what is coming, so room is made before it comes.
            self._make_room(sum(path.stat().st_size for path in folder.glob("*.safetensors")))
            self._models[key] = self._load(folder, dtype)
            _log.info("reference model loaded", digest=ref.digest, dtype=dtype)
        self._models.move_to_end(key)
        return self._models[key]

    def _make_room(self, coming: int) -> None:
        held = sum(model.size_bytes for model in self._models.values())
        while self._models and held + coming > self._memory_bytes:
            _, model = self._models.popitem(last=False)
            held -= model.size_bytes
