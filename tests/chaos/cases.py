"""Which fault a seed means: a pure function of the seed and of the tables below."""

import random
from dataclasses import dataclass, fields

from tests.chaos.jobs import VARIANTS

from quatrain.faults import POINTS

PREFIXES = {
    "orchestrator": ("submit.", "joblog.", "owner.", "retention."),
    "rollout": ("rollout.",),
    "generation": ("generation.",),
    "reward": ("reward.",),
    "reference": ("reference.",),
    "learner": ("learner.", "folder."),
}
"""The points that a kind of process can reach, by the beginnings of their names."""

PAIRS = tuple(
    (kind, point)
    for kind, prefixes in PREFIXES.items()
    for point in POINTS
    if any(point.startswith(prefix) for prefix in prefixes)
)
DRAWN_VARIANTS = ("ppo", "ppo", "stale", "stale", "full", "full-stale")
"""The variants as often as they are drawn: all three stages take three times as long as PPO alone."""
STAGES_ONLY = ("owner.after_offset",)
"""Points that a job of PPO alone does not reach."""
PAUSES = ("owner.before_paused", "owner.after_paused")
"""Points that a job reaches only if somebody pauses it."""
AFTER_THE_END = ("owner.after_finish", "owner.after_clean", "retention.before_done")
"""Points that come after the terminal event, so that a driver has to wait for them a little."""
MOST_HITS = {
    "joblog.before_event": 24,
    "joblog.after_event": 24,
    "owner.after_enqueue": 6,
    "owner.after_collect": 6,
    "owner.after_batch": 6,
    "owner.after_seal": 6,
    "owner.after_train": 6,
    "owner.after_publish": 6,
    "owner.after_step": 6,
    "owner.after_save": 2,
    "owner.after_checkpoint": 2,
    "owner.after_evaluation": 3,
    "owner.after_evaluated": 3,
    "retention.after_release": 2,
    "retention.between_deletes": 8,
    "rollout.after_lease": 9,
    "rollout.before_complete": 9,
    "rollout.after_complete": 9,
    "generation.before": 20,
    "generation.after": 20,
    "reward.before": 20,
    "reward.after": 20,
    "reference.before": 6,
    "reference.after": 6,
    "learner.after_train": 6,
    "learner.before_reply": 6,
    "learner.after_publish": 6,
    "learner.after_save": 2,
    "folder.between_files": 18,
    "folder.before_manifest": 8,
}
"""How often every job hits a point in one process at least; others are hit once."""

LAST_REVISION = {"ppo": 15, "stale": 15, "full": 32, "full-stale": 32}
"""How far the log of a job must have come, at most, for a fault that has no point."""
KILLED = ("orchestrator", "learner", "rollout", "generation", "reward", "reference", "redis")
HOLDS = {"orchestrator": 8.0, "learner": 36.0, "rollout": 5.0}
"""Seconds that a stopped process stands still: longer than its lease."""
STOPPED = tuple(pair for pair in PAIRS if pair[0] in ("orchestrator", "rollout"))
LINKS = ("generation", "reward", "reference", "learner", "redis")
LINK_FAULTS = ("latency", "reset", "cut", "narrow")
REDIS_FAULTS = ("flush", "wipe", "restart", "full", "flush-owner", "wipe-owner")
STORE_FAULTS = ("500", "503", "drop", "lose reply", "truncate", "flip", "507", "away", "away a minute")
REPLAYS = ("submit-twice", "tasks-twice", "results-twice", "stale-token")
POISONS = ("tasks", "results", "index")
CLOCKS = ("forward", "back")
CLOCKED = ("orchestrator", "learner", "rollout", "generation")
ROLLINGS = ("term-orchestrator", "term-learner", "term-rollout", "term-services", "scale-rollout")


@dataclass(frozen=True)
class Case:
    """One fault: its class (A to I of the design), what happens, to which process, where, and to which job.

    `point` empty: when the job's log has reached revision `at`. `hit`: the hit of the point that counts.
    """

    fault: str
    what: str
    process: str
    point: str = ""
    hit: int = 0
    at: int = 0
    variant: str = "ppo"
    flavour: str = "fake"

    @property
    def name(self) -> str:
        """What `--case` takes."""
        return "/".join(str(getattr(self, field.name)) for field in fields(self))


def case_named(name: str) -> Case:
    """The reverse of `Case.name`."""
    fault, what, process, point, hit, at, variant, flavour = name.split("/")
    return Case(fault, what, process, point, int(hit), int(at), variant, flavour)


SCHEDULE = "AAAAAAAADBAAAAAAADECAAAAAAADBFAAAAAAAEGH"
"""The class of fault of each seed, over and over. Seeds are counted from 1."""
CLOCK_EVERY = 49
"""Every so many seeds sets a clock, whatever the schedule says."""
TORCH_EVERY = 20
"""Every so many seeds of class A run on real models."""


def case_of(seed: int) -> Case:
    """The case of a seed."""
    draw = random.Random(f"quatrain chaos {seed}")
    if seed % CLOCK_EVERY == 0:
        return _clock(seed // CLOCK_EVERY, draw)
    rounds, place = divmod(seed - 1, len(SCHEDULE))
    fault = SCHEDULE[place]
    number = rounds * SCHEDULE.count(fault) + SCHEDULE[:place].count(fault)
    return MAKERS[fault](number, draw)


def _kill(number: int, draw: random.Random) -> Case:
    """Three of four at a point, so that the pairs come round in order; else at a random revision."""
    flavour = "torch" if number % TORCH_EVERY == TORCH_EVERY - 1 else "fake"
    round_number, place = divmod(number, 8)
    if place >= 6:
        return _at_revision("A", "kill", draw.choice(KILLED), draw, flavour)
    kind, point = PAIRS[(round_number * 6 + place) % len(PAIRS)]
    return _at_point("A", "kill", kind, point, draw, flavour)


def _at_point(fault: str, what: str, kind: str, point: str, draw: random.Random, flavour: str) -> Case:
    variants = VARIANTS[2:] if point in STAGES_ONLY else DRAWN_VARIANTS
    variant = draw.choice(variants)
    return Case(fault, what, kind, point, draw.randint(1, MOST_HITS.get(point, 1)), 0, variant, flavour)


def _at_revision(fault: str, what: str, process: str, draw: random.Random, flavour: str = "fake") -> Case:
    variant = draw.choice(DRAWN_VARIANTS)
    return Case(fault, what, process, at=draw.randint(1, LAST_REVISION[variant]), variant=variant, flavour=flavour)


def _stop(number: int, draw: random.Random) -> Case:
    """Half at points; every fourth stops the learner, which takes longest."""
    if number % 4 == 3:
        return _at_revision("B", "stop", "learner", draw)
    if number % 4 == 2:
        return _at_revision("B", "stop", draw.choice(("orchestrator", "rollout")), draw)
    kind, point = STOPPED[(number // 4 * 2 + number % 4) * 7 % len(STOPPED)]
    return _at_point("B", "stop", kind, point, draw, "fake")


def _link(number: int, draw: random.Random) -> Case:
    return _at_revision("C", LINK_FAULTS[number % 4], LINKS[number // 4 % len(LINKS)], draw, "links")


def _redis(number: int, draw: random.Random) -> Case:
    return _at_revision("D", REDIS_FAULTS[number % len(REDIS_FAULTS)], "redis", draw)


def _store(number: int, draw: random.Random) -> Case:
    return _at_revision("E", STORE_FAULTS[number % len(STORE_FAULTS)], "store", draw, "s3")


def _replay(number: int, draw: random.Random) -> Case:
    return _at_revision("F", REPLAYS[number % len(REPLAYS)], "driver", draw)


def _poison(number: int, draw: random.Random) -> Case:
    return _at_revision("G", POISONS[number % len(POISONS)], "driver", draw)


def _clock(number: int, draw: random.Random) -> Case:
    return _at_revision("I", CLOCKS[number % 2], CLOCKED[number // 2 % len(CLOCKED)], draw)


def _rolling(number: int, draw: random.Random) -> Case:
    return _at_revision("H", ROLLINGS[number % len(ROLLINGS)], "driver", draw)


MAKERS = {
    "A": _kill,
    "B": _stop,
    "C": _link,
    "D": _redis,
    "E": _store,
    "F": _replay,
    "G": _poison,
    "H": _rolling,
}
