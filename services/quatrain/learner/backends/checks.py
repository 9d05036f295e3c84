"""Checks at the edge of a trainer: token ids that go in, metrics that come out."""

import math
from collections.abc import Mapping

from quatrain.batches.sealed import IntArray
from quatrain.errors import InvalidData


def check_ids(ids: IntArray, vocabulary: int, positions: int) -> None:
    """Raise InvalidData for a training row that the model cannot read."""
    if len(ids) == 0 or len(ids) > positions:
        raise InvalidData(f"A training row has {len(ids)} tokens; the model takes 1 to {positions}. Lower max_length.")
    if ids.min() < 0 or ids.max() >= vocabulary:
        raise InvalidData(
            f"A training row has a token id outside 0..{vocabulary - 1}: the tokenizer does not belong to the model."
        )


def finite_metrics(metrics: Mapping[str, float | None]) -> dict[str, float | None]:
    """Return the metrics as floats, with None (not defined) for NaN and infinity."""
    return {
        name: float(value) if value is not None and math.isfinite(value) else None for name, value in metrics.items()
    }
