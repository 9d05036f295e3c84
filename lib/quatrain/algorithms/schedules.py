"""Learning-rate schedules: the rate of each optimizer step as a function of its number. No torch."""

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType

# Each maps progress 0 <= x < 1 after the warm-up to a factor.
_DECAYS: Mapping[str, Callable[[float], float]] = MappingProxyType(
    {
        "linear": lambda progress: 1.0 - progress,
        "cosine": lambda progress: 0.5 * (1.0 + math.cos(math.pi * progress)),
        "constant": lambda progress: 1.0,
    }
)


def lr_at(k: int, total: int, base: float, schedule: str, warmup_steps: int = 0) -> float:
    """Return the learning rate of step k = 0 .. total - 1.

    Warm-up rises linearly, base * (k + 1) / (warmup_steps + 1), so no step is wasted at rate 0. After it, with progress
    x = (k - warmup_steps) / (total - warmup_steps): linear base * (1 - x), cosine base * (1 + cos(pi x)) / 2,
    constant base.

    Raises:
        ValueError: k is not in 0 .. total - 1, or the schedule does not exist.
    """
    if not 0 <= k < total:
        raise ValueError(f"step {k} does not exist: a schedule of {total} steps has steps 0 to {total - 1}")
    if schedule not in _DECAYS:
        raise ValueError(f"schedule {schedule!r} does not exist; it is one of {', '.join(sorted(_DECAYS))}")
    if k < warmup_steps:
        return base * (k + 1) / (warmup_steps + 1)
    return base * _DECAYS[schedule]((k - warmup_steps) / (total - warmup_steps))
