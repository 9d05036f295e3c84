"""What every source of scores can do."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from quatrain.reward.samples import Batch

SourceT_contra = TypeVar("SourceT_contra", contravariant=True)


@dataclass(frozen=True)
class SourceScores:
    """What one source says about n samples. Values may be NaN or infinite: the service refuses such samples."""

    values: tuple[float | None, ...]
    """Of each sample, before weighting; None: the source says nothing about it."""
    terms: Mapping[str, tuple[float | None, ...]]
    """Raw columns that make up `values`, by name."""
    version: str
    """What scored: digest of the model or of the code."""
    offset: float = 0.0
    """Subtracted from `values` after weighting (times the weight); not from `terms`."""
    refused: Mapping[int, str] = field(default_factory=dict)
    """Reason for each sample that this source cannot score, by index."""
    logged: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """Columns to keep beside the scores; None where there is nothing for a sample."""
    metrics: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers of the call, by name; the service averages those of one name."""


class Backend(Protocol[SourceT_contra]):
    """One kind of source. Used from one event loop."""

    async def score(self, source: SourceT_contra, batch: Batch) -> SourceScores:
        """Score every sample of the batch, which has at least one."""
        ...

    async def close(self) -> None:
        """Give everything back."""
        ...
