"""From the sum of the terms of a reward to the score of a sample. Plain floats, no torch."""


def compose_score(
    terms_sum: float, offset: float, scale: float, clip: float | None, penalty: float, truncated: bool
) -> float:
    """Return the score of a sample: the sum minus offset, times scale, clipped to +-clip, minus penalty if truncated.

    The penalty comes last and is subtracted instead of replacing the score, so truncated samples stay comparable and
    may fall below -clip.
    """
    score = (terms_sum - offset) * scale
    if clip is not None:
        score = min(max(score, -clip), clip)
    return score - penalty if truncated else score
