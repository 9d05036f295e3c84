"""From measured steps to the numbers that are reported. Medians over steps; shares are medians of each step's share."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from statistics import median

from bench.cases import EPOCHS, Case
from bench.flops import step_flops
from bench.local_job import Step
from bench.peak import Peak
from bench.peers.running import PeerRun

PHASES = ("generate", "score", "reference", "collect", "seal", "train", "publish", "checkpoint", "step")


@dataclass(frozen=True)
class Targets:
    """The targets of `make bench`; `peer_ratio_at_least` by the name of the case."""

    outside_share_at_most: float
    outside_share_holds_from_step_s: float
    peak_share_at_least: float
    peer_ratio_at_least: dict[str, float]


TARGETS = Targets(
    outside_share_at_most=0.05,
    outside_share_holds_from_step_s=2.0,
    peak_share_at_least=0.60,
    peer_ratio_at_least={"uniform": 1.1, "ragged": 1.8},
)


@dataclass(frozen=True)
class RunSummary:
    """The numbers of one run of the stack; README.md explains each."""

    step_s: float
    phases_s: dict[str, float]
    completion_tokens_per_s: int
    step_cpu_s: float
    completion_tokens_per_cpu_s: int
    completion_tokens: list[int]
    steps_s: list[float]
    outside_share: float
    learner_gflops: float
    peak_gflops: float
    fastest_peak_gflops: float
    learner_peak_share: float
    learner_fastest_peak_share: float


@dataclass(frozen=True)
class Medians:
    """The medians of a case over its runs, each of the number of this name in `RunSummary`."""

    step_s: float
    completion_tokens_per_s: float
    step_cpu_s: float
    completion_tokens_per_cpu_s: float
    outside_share: float
    learner_gflops: float
    peak_gflops: float
    fastest_peak_gflops: float
    learner_peak_share: float
    learner_fastest_peak_share: float


@dataclass(frozen=True)
class Comparison:
    """The peer's medians on a case, and ours over them."""

    name: str
    completion_tokens_per_s: int
    completion_tokens_per_cpu_s: int
    ratio: float
    cpu_ratio: float


@dataclass(frozen=True)
class Reached:
    """Each target met or not; None where it does not apply."""

    outside_share: bool | None
    learner_peak_share: bool
    peer_ratio: bool | None


@dataclass(frozen=True)
class CaseReport:
    """All rounds of a case: the runs one by one, the medians over them, and the comparison where a peer ran."""

    case: str
    ours: Medians
    ours_rounds: list[RunSummary]
    peer: Comparison | None
    peer_rounds: list[PeerRun]
    reached: Reached

    def to_json(self) -> dict[str, object]:
        """Return the form that is printed; what only a comparison has is left out without one."""
        document: dict[str, object] = {
            "case": self.case,
            "ours": asdict(self.ours),
            "ours_rounds": [asdict(run) for run in self.ours_rounds],
            "peer": None,
        }
        if self.peer is not None:
            document["peer"] = {
                "name": self.peer.name,
                "completion_tokens_per_s": self.peer.completion_tokens_per_s,
                "completion_tokens_per_cpu_s": self.peer.completion_tokens_per_cpu_s,
            }
            document["peer_rounds"] = [asdict(run) for run in self.peer_rounds]
            document["ratio"] = self.peer.ratio
            document["cpu_ratio"] = self.peer.cpu_ratio
        document["reached"] = asdict(self.reached)
        return document


def outside_share(step: Step) -> float:
    """Return the share of a step in which no model computes: not generation, scoring, reference or the learner.

    Scores and reference logprobs of the batch are computed at the same time, so the longer of the two counts.
    """
    rollouts = step.seconds("generate") + max(step.seconds("score"), step.seconds("reference"))
    inside = min(rollouts, step.seconds("collect")) + step.seconds("train")
    return max(0.0, 1.0 - inside / step.wall)


def summary(case: Case, steps: Sequence[Step], peak: Peak) -> RunSummary:
    """Return the numbers of a run of the stack."""
    achieved = [step_flops(step.rows, case.vocabulary, EPOCHS) / step.seconds("train") for step in steps]
    return RunSummary(
        step_s=_rounded(median(step.wall for step in steps)),
        phases_s={name: _rounded(median(step.seconds(name) for step in steps)) for name in PHASES},
        completion_tokens_per_s=round(median(step.completion_tokens / step.wall for step in steps)),
        step_cpu_s=_rounded(median(step.cpu for step in steps)),
        completion_tokens_per_cpu_s=round(median(step.completion_tokens / step.cpu for step in steps)),
        completion_tokens=[step.completion_tokens for step in steps],
        steps_s=[_rounded(step.wall) for step in steps],
        outside_share=_rounded(median(outside_share(step) for step in steps), 4),
        learner_gflops=round(median(achieved) / 1e9, 1),
        peak_gflops=round(peak.torch / 1e9, 1),
        fastest_peak_gflops=round(peak.fastest / 1e9, 1),
        learner_peak_share=_rounded(median(achieved) / peak.torch),
        learner_fastest_peak_share=_rounded(median(achieved) / peak.fastest),
    )


def combine(case: Case, ours: Sequence[RunSummary], peers: Sequence[PeerRun]) -> CaseReport:
    """Return the report of a case over all of its rounds."""
    medians = _medians(ours)
    peer = _compare(medians, peers) if peers else None
    return CaseReport(case.name, medians, list(ours), peer, list(peers), _reached(case, medians, peer))


def _compare(ours: Medians, peers: Sequence[PeerRun]) -> Comparison:
    rate = median(float(run.real_tokens_per_s) for run in peers)
    cpu_rate = median(float(run.real_tokens_per_cpu_s) for run in peers)
    return Comparison(
        name=peers[0].peer,
        completion_tokens_per_s=round(rate),
        completion_tokens_per_cpu_s=round(cpu_rate),
        ratio=_rounded(ours.completion_tokens_per_s / rate, 2),
        # The ratio of CPU work alone, which hardly changes when the machine is busy with other things.
        cpu_ratio=_rounded(ours.completion_tokens_per_cpu_s / cpu_rate, 2),
    )


def _reached(case: Case, ours: Medians, peer: Comparison | None) -> Reached:
    long_enough = ours.step_s >= TARGETS.outside_share_holds_from_step_s
    return Reached(
        outside_share=ours.outside_share <= TARGETS.outside_share_at_most if long_enough else None,
        learner_peak_share=ours.learner_peak_share >= TARGETS.peak_share_at_least,
        peer_ratio=None if peer is None else peer.ratio >= TARGETS.peer_ratio_at_least[case.name],
    )


def _medians(runs: Sequence[RunSummary]) -> Medians:
    names = [field.name for field in fields(Medians)]
    return Medians(**{name: _rounded(median(getattr(run, name) for run in runs), 4) for name in names})


def _rounded(value: float, digits: int = 3) -> float:
    return round(float(value), digits)
