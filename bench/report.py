"""From measured steps to the numbers that are reported. Medians over steps; shares are medians of each step's share."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from bench.cases import EPOCHS, Case
from bench.flops import step_flops
from bench.local_job import Step
from bench.peak import Peak

PHASES = ("generate", "score", "reference", "collect", "seal", "train", "publish", "checkpoint", "step")
Numbers = dict[str, Any]

HEADLINES = (
    "step_s",
    "completion_tokens_per_s",
    "step_cpu_s",
    "completion_tokens_per_cpu_s",
    "outside_share",
    "learner_gflops",
    "peak_gflops",
    "fastest_peak_gflops",
    "learner_peak_share",
    "learner_fastest_peak_share",
)
TARGETS: Numbers = {
    "outside_share_at_most": 0.05,
    "outside_share_holds_from_step_s": 2.0,
    "peak_share_at_least": 0.60,
    "peer_ratio_at_least": {"uniform": 1.1, "ragged": 1.8},
}


def outside_share(step: Step) -> float:
    """Share of a step in which no model computes: neither generation, scoring, reference nor the learner.

    Scores and reference logprobs of the batch are computed at the same time, so the longer of the two counts.
    """
    rollouts = step.seconds("generate") + max(step.seconds("score"), step.seconds("reference"))
    inside = min(rollouts, step.seconds("collect")) + step.seconds("train")
    return max(0.0, 1.0 - inside / step.wall)


def summary(case: Case, steps: Sequence[Step], peak: Peak) -> Numbers:
    """What a run of the stack shows."""
    achieved = [step_flops(step.rows, case.vocabulary, EPOCHS) / step.seconds("train") for step in steps]
    return {
        "step_s": _rounded(median(step.wall for step in steps)),
        "phases_s": {name: _rounded(median(step.seconds(name) for step in steps)) for name in PHASES},
        "completion_tokens_per_s": round(median(step.completion_tokens / step.wall for step in steps)),
        "step_cpu_s": _rounded(median(step.cpu for step in steps)),
        "completion_tokens_per_cpu_s": round(median(step.completion_tokens / step.cpu for step in steps)),
        "completion_tokens": [step.completion_tokens for step in steps],
        "steps_s": [_rounded(step.wall) for step in steps],
        "outside_share": _rounded(median(outside_share(step) for step in steps), 4),
        "learner_gflops": round(median(achieved) / 1e9, 1),
        "peak_gflops": round(peak.torch / 1e9, 1),
        "fastest_peak_gflops": round(peak.fastest / 1e9, 1),
        "learner_peak_share": _rounded(median(achieved) / peak.torch),
        "learner_fastest_peak_share": _rounded(median(achieved) / peak.fastest),
    }


def combine(case: Case, ours: Sequence[Numbers], peers: Sequence[Numbers]) -> Numbers:
    """All rounds of a case: the runs one by one and the medians over them."""
    joined: Numbers = {"case": case.name, "ours": _medians(ours), "ours_rounds": list(ours)}
    if peers:
        rates = [float(peer["real_tokens_per_s"]) for peer in peers]
        cpu_rates = [float(peer["real_tokens_per_cpu_s"]) for peer in peers]
        joined["peer"] = {
            "name": peers[0]["peer"],
            "completion_tokens_per_s": round(median(rates)),
            "completion_tokens_per_cpu_s": round(median(cpu_rates)),
        }
        joined["peer_rounds"] = list(peers)
        joined["ratio"] = _rounded(joined["ours"]["completion_tokens_per_s"] / median(rates), 2)
        # What is left of the ratio when the machine does other things, too: work for work, without waiting.
        joined["cpu_ratio"] = _rounded(joined["ours"]["completion_tokens_per_cpu_s"] / median(cpu_rates), 2)
    else:
        joined["peer"] = None
    joined["reached"] = reached(joined)
    return joined


def reached(joined: Mapping[str, Any]) -> dict[str, bool | None]:
    """Each target met or not; None where it does not apply."""
    ours = joined["ours"]
    long_enough = ours["step_s"] >= TARGETS["outside_share_holds_from_step_s"]
    ratio = joined.get("ratio")
    peer_targets: Any = TARGETS["peer_ratio_at_least"]
    return {
        "outside_share": ours["outside_share"] <= TARGETS["outside_share_at_most"] if long_enough else None,
        "learner_peak_share": ours["learner_peak_share"] >= TARGETS["peak_share_at_least"],
        "peer_ratio": None if ratio is None else ratio >= peer_targets[joined["case"]],
    }


def _medians(runs: Sequence[Numbers]) -> Numbers:
    return {name: _rounded(median(run[name] for run in runs), 4) for name in HEADLINES}


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)
