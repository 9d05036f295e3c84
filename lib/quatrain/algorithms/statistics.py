"""Statistics of plain numbers, each None where it is undefined. No torch."""

import math
from collections.abc import Sequence


def mean(values: Sequence[float]) -> float | None:
    """Return the mean; None for no values."""
    return math.fsum(values) / len(values) if values else None


def standard_deviation(values: Sequence[float]) -> float | None:
    """Return Bessel's standard deviation; None for fewer than two values."""
    if len(values) < 2:
        return None
    centre = math.fsum(values) / len(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None for fewer than two values."""
    deviation = standard_deviation(values)
    return None if deviation is None else deviation / math.sqrt(len(values))


def correlation(x: Sequence[float], y: Sequence[float]) -> float | None:
    """Return Pearson's correlation; None when either side does not vary."""
    if len(x) != len(y):
        raise ValueError(f"{len(x)} values cannot be correlated with {len(y)}")
    if len(x) < 2:
        return None
    mean_x, mean_y = math.fsum(x) / len(x), math.fsum(y) / len(y)
    square_x = math.fsum((a - mean_x) ** 2 for a in x)
    square_y = math.fsum((b - mean_y) ** 2 for b in y)
    # Rounding leaves a trace of variance in constant values; anything below it counts as none.
    if square_x <= 1e-24 * len(x) * mean_x**2 or square_y <= 1e-24 * len(y) * mean_y**2 or not square_x * square_y > 0:
        return None
    product = math.fsum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return max(-1.0, min(1.0, product / math.sqrt(square_x * square_y)))


def percentile(values: Sequence[float], share: float) -> float | None:
    """Return the value below which `share` (0 to 1) of the values lie, interpolated linearly; None for no values."""
    if not values:
        return None
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    low = math.floor(position)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (position - low)
