"""How much of a gain in score is only a change of length. No torch.

The first steps of a run are cut into deciles of completion length, each with its mean score. Later, the gain in mean
score splits exactly into the part inside the deciles (same length, better score) and the part that came from moving
between them:

    mean_now - mean_then = sum_d p_now(d) * (m_now(d) - m_then(d)) + sum_d (p_now(d) - p_then(d)) * m_then(d)

The decomposition is Oaxaca's; for length in RLHF see Singhal et al., arXiv:2310.03716.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

BASELINE_STEPS = 10
DECILES = 10


@dataclass(frozen=True)
class LengthBaseline:
    """Lengths and scores of the first steps of a run. State: it belongs in every checkpoint."""

    steps: int = 0
    lengths: tuple[int, ...] = ()
    scores: tuple[float, ...] = ()

    @property
    def complete(self) -> bool:
        """Return whether the first steps are all in."""
        return self.steps >= BASELINE_STEPS

    def add(self, lengths: Sequence[int], scores: Sequence[float]) -> "LengthBaseline":
        """Return the baseline with one more step, or itself once it is complete."""
        if len(lengths) != len(scores):
            raise ValueError(f"{len(lengths)} lengths do not fit {len(scores)} scores")
        if self.complete:
            return self
        return LengthBaseline(self.steps + 1, (*self.lengths, *lengths), (*self.scores, *scores))

    def edges(self) -> list[int]:
        """Return the lengths at which a new decile begins. Equal ones are merged, so that no decile is empty."""
        ordered = sorted(self.lengths)
        cuts = {ordered[len(ordered) * part // DECILES] for part in range(1, DECILES)} if ordered else set()
        return sorted(cut for cut in cuts if cut > ordered[0])

    def explained(self, lengths: Sequence[int], scores: Sequence[float]) -> float | None:
        """Return 1 - gain within the length deciles / total gain for a later step.

        1 means that the whole gain is a change of length, 0 that none of it is. None while the baseline grows, and
        when the total gain is not above two standard errors: a quotient of two noises means nothing.
        """
        if not self.complete or not self.scores or not scores:
            return None
        gain = _mean(scores) - _mean(self.scores)
        noise = math.sqrt(_variance_of_mean(scores) + _variance_of_mean(self.scores))
        if gain <= max(2.0 * noise, 1e-12):
            return None
        edges = self.edges()
        then = _mean_by_decile(edges, self.lengths, self.scores)
        inside = sum(
            score - then[bisect_right(edges, length)] for length, score in zip(lengths, scores, strict=True)
        ) / len(scores)
        return 1.0 - inside / gain


def _mean_by_decile(edges: Sequence[int], lengths: Sequence[int], scores: Sequence[float]) -> dict[int, float]:
    members: dict[int, list[float]] = {}
    for length, score in zip(lengths, scores, strict=True):
        members.setdefault(bisect_right(edges, length), []).append(score)
    return {decile: _mean(values) for decile, values in members.items()}


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values)


def _variance_of_mean(values: Sequence[float]) -> float:
    if len(values) < 2:
        return 0.0
    centre = _mean(values)
    return math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1) / len(values)
