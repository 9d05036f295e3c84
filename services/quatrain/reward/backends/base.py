"""The interface of every source of scores."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from quatrain.reward.samples import Batch

SourceT_contra = TypeVar("SourceT_contra", contravariant=True)


@dataclass(frozen=True)
class SourceScores:
    """The scores of one source for n samples. Values may be NaN or infinite: the service refuses such samples."""

    values: tuple[float | None, ...]
    """One value for each sample, before weighting; None where the source gives none."""
    terms: Mapping[str, tuple[float | None, ...]]
    """The raw columns that make up `values`, by name."""
    version: str
    """Digest of the model or of the code that scored."""
    offset: float = 0.0
    """Subtracted from `values` after weighting (times the weight); not from `terms`."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """The reason for each sample that this source cannot score, by index."""
    logged: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Columns of JSON values that are kept beside the scores; None where a sample has none."""
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers about the call as a whole, by name; the service averages those of one name."""


class Backend(Protocol[SourceT_contra]):
    """One kind of source. It is used from one event loop.

    scores = await backend.score(source, batch)
    """

    async def score(self, source: SourceT_contra, batch: Batch) -> SourceScores:
        """Score every sample of the batch, which has at least one."""
        ...

    async def close(self) -> None:
        """Release all resources."""
        ...
