"""Metrics of a step that the orchestrator knows: wall and compute times, and those of the collected results."""

import contextlib
import math
import time
from collections.abc import Iterator, Sequence

from quatrain.joblog.payloads import Metrics
from quatrain.orchestrator.rollout.samples import Made

SCALE = "reward_scale"
"""Name of the condition that says that the scores are too large, too small or all the same."""
SCORE_STD_RANGE = (0.05, 5.0)


class StepClock:
    """Wall seconds of the phases of one step, from its creation on."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Add the time inside to a phase."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.add(name, time.monotonic() - started)

    def add(self, name: str, seconds: float) -> None:
        """Add seconds to a phase."""
        self._seconds[name] = self._seconds.get(name, 0.0) + seconds

    def metrics(self, known: Metrics, checkpoint_seconds: float) -> Metrics:
        """Return the time/* and throughput/* metrics. `time/checkpoint` is that of the checkpoint before this step."""
        step = time.monotonic() - self._started + checkpoint_seconds
        tokens = known.get("completions/tokens")
        return {
            "time/collect": self._seconds.get("collect", 0.0),
            "time/seal": self._seconds.get("seal", 0.0),
            "time/train": self._seconds.get("train_compute", self._seconds.get("train", 0.0)),
            "time/publish": self._seconds.get("publish", 0.0),
            "time/checkpoint": checkpoint_seconds,
            "time/step": step,
            "throughput/completion_tokens_per_s": None if tokens is None else tokens / step,
        }


def collected_metrics(made: Sequence[Made]) -> Metrics:
    """Return compute seconds of the three services, summed over chunks; completion tokens; logged metrics.

    A logged value that is not finite is left out: the log takes no NaN.
    """
    chunks = {each.place.chunk: each.work for each in made}
    metrics: Metrics = {
        "time/generate": sum(work.generate_seconds for work in chunks.values()),
        "time/score": sum(work.score_seconds for work in chunks.values()),
        "time/reference": sum(work.reference_seconds for work in chunks.values()),
        "completions/tokens": float(sum(len(each.rollout.completion_ids) for each in made)),
    }
    logged: dict[str, list[float]] = {}
    for work in chunks.values():
        for name, value in work.reward_metrics:
            if value is not None and math.isfinite(value):
                logged.setdefault(f"reward/logged/{name}", []).append(value)
    return metrics | {name: sum(values) / len(values) for name, values in logged.items()}


def scale_warning(step: int, score_std: float) -> str | None:
    """Return what to say when scores are of a size that the value clip of 0.2 makes slow; else None."""
    least, most = SCORE_STD_RANGE
    if least <= score_std <= most:
        return None
    if score_std == 0.0:
        return f"all scores of step {step} are equal: nothing can be learned from them yet; look at the reward"
    return (
        f"the scores of step {step} have a standard deviation of {score_std:.3g} (good are {least} to {most}): "
        f"the value model learns slowly; set reward.scale to about {1.0 / score_std:.2g}, or ppo.clip.value to null"
    )
