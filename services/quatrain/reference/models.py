"""Which reference models are in memory: as many as a budget of bytes holds, the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from quatrain.models.model_runner import WeightsKey
from quatrain.reference.backends.base import Backend, LoadedModel
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger

_log = get_logger("quatrain.reference")


class LoadedModels:
    """Models by reference. Used by the model thread only, except for `holds`."""

    def __init__(self, backend: Backend, fetch: Callable[[str, str], Path], memory_bytes: int) -> None:
        self._backend = backend
        self._fetch = fetch
        self._memory_bytes = memory_bytes
        self._models: OrderedDict[WeightsKey, LoadedModel] = OrderedDict()

    def holds(self, key: WeightsKey) -> bool:
        """Whether the model is in memory now; by the time of use it may have gone."""
        return key in self._models

    def model(self, ref: ModelRef, dtype: str) -> LoadedModel:
        """The model that `ref` names, loaded if it is not held.

        The model asked for stays even where it exceeds the budget alone. Raises NotFound, Corrupt, Unavailable
        (fetching), InvalidInput, InvalidData (loading).
        """
        key = WeightsKey.of(ref, dtype)
        if key not in self._models:
            folder = self._fetch(ref.uri, ref.digest) if self._backend.needs_weights else None
            # The weights on disk say what is coming, so room is made before it comes.
            self._make_room(_weight_bytes(folder))
            self._models[key] = self._backend.load(folder, dtype)
            _log.info("reference model loaded", digest=ref.digest, dtype=dtype)
        self._models.move_to_end(key)
        return self._models[key]

    def _make_room(self, coming: int) -> None:
        held = sum(model.size_bytes for model in self._models.values())
        while self._models and held + coming > self._memory_bytes:
            _, model = self._models.popitem(last=False)
            held -= model.size_bytes


def _weight_bytes(folder: Path | None) -> int:
    return sum(path.stat().st_size for path in folder.glob("*.safetensors")) if folder is not None else 0
