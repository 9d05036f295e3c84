"""Prints the slower tiers, one a line as `seconds needs target`, in the order in which `.ci/run` should run them.

First those whose paths changed within a day before the newest commit, in turn, then the one whose committed results
are the oldest. `needs` is the script of this folder that makes the machine ready for the tier, or says why it cannot;
`-` is none.
"""

import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
SESSION = 24 * 3600  # seconds of commits that land together
PRODUCT = ("lib", "services", "orchestrator", "proto")

NO_REGISTRY = "BASE_IMAGE=debootstrap"


@dataclass(frozen=True)
class Tier:
    """A make target with its variables, the seconds that it needs at most on two cores, and where its figures lie.

    The seconds are those of a new machine, which has to build what the tier runs.
    """

    target: str
    seconds: int
    paths: tuple[str, ...]
    results: str = ""
    needs: str = "-"


TIERS = (
    Tier("test-slow", 1800, (*PRODUCT, "tests/e2e", "tests/integration", "tests/unit")),
    Tier(
        "newcomer-test",
        2000,
        ("Makefile", "pyproject.toml", "constraints.txt", "examples/courteous-replies", "tests/servers", ".ci"),
        needs="bare-root",
    ),
    Tier("oldest-redis", 200, ("lib/quatrain/queue", "tests/contract", "tests/servers")),
    Tier("chaos RUNS=40", 600, (*PRODUCT, "tests/chaos"), "tests/chaos/results"),
    Tier("chart-test", 900, ("lib/quatrain/config", "helm", "docker", "tests/chart")),
    Tier("load", 900, (*PRODUCT, "tests/load"), "tests/load/results"),
    Tier(f"image-test {NO_REGISTRY}", 1200, ("docker", "compose.yaml", "tests/images"), needs="containers"),
    Tier("control-test", 1900, ("helm", "tests/cluster")),
    Tier(
        f'cluster-test ONLY="documented killed" {NO_REGISTRY}',
        1500,
        ("helm", "docker", "tests/cluster"),
        "tests/cluster/results",
        needs="containers",
    ),
)


def main() -> None:
    """Print the order."""
    head = int(_git("log", "-1", "--format=%ct"))
    changes = {tier.target: _last_change(tier.paths) for tier in TIERS}
    changed = [tier for tier in TIERS if head - changes[tier.target] <= SESSION]
    others = [tier for tier in TIERS if tier not in changed]
    # Nothing here remembers what earlier runs did: the number of commits turns the order, so that each has its turns.
    turn = int(_git("rev-list", "--count", "HEAD")) % max(1, len(changed))
    others.sort(key=lambda tier: _last_change((tier.results,)) if tier.results else 0)
    for tier in (*changed[turn:], *changed[:turn], *others):
        print(tier.seconds, tier.needs, tier.target)


def _last_change(paths: tuple[str, ...]) -> int:
    """Epoch seconds of the last commit that touched one of the paths; 0 when none did."""
    return int(_git("log", "-1", "--format=%ct", "--", *paths) or 0)


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(ROOT), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


if __name__ == "__main__":
    main()
