"""Prints the slower tiers, one a line as `seconds target`, in the order in which `.ci/run` should run them.

A target that is only run by hand has `by-hand` in place of its seconds. First those whose paths changed last, among
equals the one whose committed results are the oldest.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PRODUCT = ("lib", "services", "orchestrator", "proto")


@dataclass(frozen=True)
class Tier:
    """A make target with its variables, the seconds that it needs at most on two cores, and where its figures lie."""

    target: str
    seconds: int
    paths: tuple[str, ...]
    results: str = ""


TIERS = (
    Tier("test-slow", 1800, (*PRODUCT, "tests/e2e", "tests/integration", "tests/unit")),
    Tier("chaos RUNS=40", 600, (*PRODUCT, "tests/chaos"), "tests/chaos/results"),
    Tier("chart-test", 900, ("lib/quatrain/config", "helm", "docker", "tests/chart")),
    Tier("load", 900, (*PRODUCT, "tests/load"), "tests/load/results"),
)
BY_HAND = ("image-test", "control-test", "cluster-test")
"""Targets that build images or Kubernetes, or need rights that not every machine gives."""


def last_change(paths: tuple[str, ...]) -> int:
    """Epoch seconds of the last commit that touched one of the paths; 0 when none did."""
    command = ["git", "-C", str(ROOT), "log", "-1", "--format=%ct", "--", *paths]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    return int(found.stdout.strip() or 0)


def main() -> None:
    """Prints the order."""
    ordered = sorted(
        TIERS, key=lambda tier: (-last_change(tier.paths), last_change((tier.results,)) if tier.results else 0)
    )
    for tier in ordered:
        print(tier.seconds, tier.target)
    for target in BY_HAND:
        print("by-hand", target)


if __name__ == "__main__":
    main()
