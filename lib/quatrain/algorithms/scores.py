"""From the terms of a reward to one score per sample. Plain floats, no torch."""

import math
from collections.abc import Mapping


def weighted_sum(terms: Mapping[str, float | None], weights: Mapping[str, float]) -> float | None:
    """Return the sum of weight times term over the terms that apply; None when none does.

    A term of None does not apply and adds nothing; a weight that is not given is 1.

    Raises:
        ValueError: A term is NaN or infinite; such a sample has to be refused before.
    """
    applicable = {name: value for name, value in terms.items() if value is not None}
    for name, value in applicable.items():
        if not math.isfinite(value):
            raise ValueError(f"reward term {name!r} is {value}; a sample with such a term is refused, not summed")
    if not applicable:
        return None
    return sum(weights.get(name, 1.0) * value for name, value in applicable.items())


def compose_score(
    terms_sum: float, offset: float, scale: float, clip: float | None, penalty: float, truncated: bool
) -> float:
    """Return the score of a sample: the sum minus offset, times scale, clipped to +-clip, minus penalty if truncated.

    The penalty comes last and is subtracted, never set, so a truncated sample stays comparable and may fall below
    -clip.
    """
    score = (terms_sum - offset) * scale
    if clip is not None:
        score = min(max(score, -clip), clip)
    return score - penalty if truncated else score
