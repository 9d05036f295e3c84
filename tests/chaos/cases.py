"""Which fault a seed means: a pure function of the seed and of the tables below."""

import random
from dataclasses import dataclass, fields, replace

from tests.chaos.jobs import VARIANTS

from quatrain.faults import POINTS

PREFIXES = {
    "orchestrator": ("submit.", "joblog.", "owner.", "retention.", "fork.", "delete.", "upload.", "import.", "folder."),
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
SCENARIOS = ("fork", "delete", "release", "upload", "import")
"""Variants of PPO alone in which the run asks for more than a job: see tests/chaos/scenarios.py."""
ONLY_IN = {
    "owner.after_offset": VARIANTS[2:],
    "fork.": ("fork",),
    "delete.": ("delete", "release"),
    "upload.": ("upload",),
    "import.": ("import",),
}
"""Points, or the beginnings of their names, that jobs of other variants do not reach."""
LARGE_ONLY = ("rollout.after_objects",)
"""Points that are reached where results are too large for the queue."""
PAUSES = ("owner.before_paused", "owner.after_paused")
"""Points that a job reaches only if somebody pauses it."""
AFTER_THE_END = ("owner.after_finish", "owner.after_clean", "retention.before_done")
"""Points that come after the terminal event, so that a driver has to wait for them a little."""
MAX_HITS = {
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
    "upload.between_chunks": 4,
    "rollout.after_objects": 9,
}
"""How often every job hits a point in one process at least; others are hit once."""
FEWER_HITS = {
    ("orchestrator", "folder.between_files"): 3,
    ("orchestrator", "folder.before_manifest"): 1,
}
"""The same where one kind of process hits a point less often than another."""

LAST_REVISION = {"ppo": 15, "stale": 15, "full": 32, "full-stale": 32}
"""How far the log of a job must have come, at most, for a fault that has no point."""
KILLED = ("orchestrator", "learner", "rollout", "generation", "reward", "reference", "redis")
HOLDS = {"orchestrator": 8.0, "learner": 36.0, "rollout": 5.0, "generation": 8.0, "reward": 8.0, "reference": 8.0}
"""Seconds that a stopped process stands still: longer than its lease, or than that of the task it works on."""
CALLS = {
    "orchestrator": ("generation", "reward", "reference", "learner", "redis", "store"),
    "rollout": ("generation", "reward", "reference", "redis", "store"),
    "learner": ("store",),
    "generation": ("store",),
    "reward": ("store",),
    "reference": ("store",),
}
"""Who talks to whom."""
LINKS = tuple(f"{client}-{server}" for client, servers in CALLS.items() for server in servers)
EARLY_LINKS = ("orchestrator-generation", "orchestrator-reward", "orchestrator-reference")
"""Links on which something passes mostly while a job is submitted."""
STARTING_LINKS = ("rollout-store", "generation-store", "reward-store", "reference-store")
"""Links on which something passes mostly while the client starts: what it reads it keeps."""
LINK_FAULTS = ("latency", "reset", "cut", "narrow")
REDIS_FAULTS = ("flush", "wipe", "restart", "full", "flush-owner", "wipe-owner", "away")
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
        return at_revision("A", "kill", draw.choice(KILLED), draw, flavour)
    kind, point = PAIRS[(round_number * 6 + place) % len(PAIRS)]
    return at_point("A", "kill", kind, point, draw, flavour)


def at_point(fault: str, what: str, kind: str, point: str, draw: random.Random, flavour: str = "fake") -> Case:
    """A fault at a named point, in a job and on a stack that get there."""
    only = [variants for name, variants in ONLY_IN.items() if point.startswith(name)]
    if kind == "orchestrator" and point.startswith("folder."):
        only = [("import",)]
    variant = draw.choice(only[0] if only else DRAWN_VARIANTS)
    hits = FEWER_HITS.get((kind, point), MAX_HITS.get(point, 1))
    return Case(
        fault, what, kind, point, draw.randint(1, hits), 0, variant, "large" if point in LARGE_ONLY else flavour
    )


def at_revision(fault: str, what: str, process: str, draw: random.Random, flavour: str = "fake") -> Case:
    """A fault when the log of a job has come to some revision."""
    variant = draw.choice(DRAWN_VARIANTS)
    return Case(fault, what, process, at=draw.randint(1, LAST_REVISION[variant]), variant=variant, flavour=flavour)


def _stop(number: int, draw: random.Random) -> Case:
    """Half at points; every fourth stops the learner, which takes longest."""
    if number % 4 == 3:
        return at_revision("B", "stop", "learner", draw)
    if number % 4 == 2:
        return at_revision("B", "stop", draw.choice(("orchestrator", "rollout")), draw)
    kind, point = PAIRS[(number // 4 * 2 + number % 4) * 7 % len(PAIRS)]
    return at_point("B", "stop", kind, point, draw)


def _link(number: int, draw: random.Random) -> Case:
    return on_link(LINK_FAULTS[number % 4], LINKS[number // 4 % len(LINKS)], draw)


def on_link(what: str, link: str, draw: random.Random) -> Case:
    """A fault on the way from one kind of process to another."""
    case = at_revision("C", what, link, draw, "s3" if link.endswith("-store") else "links")
    return replace(case, at=0) if link in EARLY_LINKS else case


def _redis(number: int, draw: random.Random) -> Case:
    return at_revision("D", REDIS_FAULTS[number % len(REDIS_FAULTS)], "redis", draw)


def _store(number: int, draw: random.Random) -> Case:
    return at_revision("E", STORE_FAULTS[number % len(STORE_FAULTS)], "store", draw, "s3")


def _replay(number: int, draw: random.Random) -> Case:
    return at_revision("F", REPLAYS[number % len(REPLAYS)], "driver", draw)


def _poison(number: int, draw: random.Random) -> Case:
    return at_revision("G", POISONS[number % len(POISONS)], "driver", draw)


def _clock(number: int, draw: random.Random) -> Case:
    return at_revision("I", CLOCKS[number % 2], CLOCKED[number // 2 % len(CLOCKED)], draw)


def _rolling(number: int, draw: random.Random) -> Case:
    return at_revision("H", ROLLINGS[number % len(ROLLINGS)], "driver", draw)


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
