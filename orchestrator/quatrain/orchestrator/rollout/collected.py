"""The samples of a whole batch in memory: kept as bytes, and decoded when they are asked for."""

from collections.abc import Sequence
from typing import overload

from typing_extensions import override

from quatrain.errors import Corrupt
from quatrain.orchestrator.rollout.samples import Made
from quatrain.orchestrator.rollout.wire import decode_result


class CollectedSamples(Sequence[Made]):
    """The samples of a batch in its order. Iterating reads one after the other; do it in a thread.

    A step may have tens of thousands of samples, each a dozen objects. All of them at once would stop the interpreter
    for tenths of a second at each garbage collection, which does not look into bytes.
    """

    def __init__(self, encoded: Sequence[bytes]) -> None:
        self._encoded = encoded

    @override
    def __len__(self) -> int:
        return len(self._encoded)

    @overload
    def __getitem__(self, index: int) -> Made: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Made]: ...

    @override
    def __getitem__(self, index: int | slice) -> Made | Sequence[Made]:
        if isinstance(index, slice):
            return CollectedSamples(self._encoded[index])
        made = decode_result(self._encoded[index])
        if not isinstance(made, Made):
            raise Corrupt("a collected result is no sample")
        return made
