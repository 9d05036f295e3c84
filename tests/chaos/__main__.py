"""The chaos suite: `python -m tests.chaos [--seed N | --case NAME | --runs N --minutes M --stacks N]`.

Without --seed or --case it goes on with the campaign: the next seeds that have no line in the results file, or, with
--missing, what every campaign must have (tests/chaos/coverage.py) and this one lacks.
"""

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.chaos.campaign import BLOCK, RESULTS, Campaign, chunks_of, missing_cases, next_cases
from tests.chaos.cases import case_named, case_of


def main() -> int:
    """0 when no invariant was broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="repeat this seed; nothing is written")
    parser.add_argument("--case", default="", help="repeat a case by its name; nothing is written")
    parser.add_argument("--runs", type=int, default=500, help="runs of the campaign, from now on")
    parser.add_argument("--minutes", type=float, default=600.0, help="no run begins later")
    parser.add_argument("--stacks", type=int, default=2, help="stacks side by side")
    parser.add_argument("--classes", default="", help="only these classes of faults, such as AD")
    parser.add_argument("--missing", action="store_true", help="what the campaign lacks instead of the next seeds")
    parser.add_argument("--only", default="", help="with --missing: only cases whose name has this text in it")
    parser.add_argument("--results", type=Path, default=RESULTS, help="file of the campaign")
    arguments = parser.parse_args()
    home = Path(tempfile.mkdtemp(prefix="quatrain-chaos-"))
    until = time.monotonic() + 60.0 * arguments.minutes
    if arguments.case or arguments.seed is not None:
        case = case_named(arguments.case) if arguments.case else case_of(arguments.seed)
        campaign = Campaign(home, None)
        campaign.run(list(chunks_of([(arguments.seed or 0, case)])), 1)
    else:
        campaign = Campaign(home, arguments.results, until)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, campaign.stop)
        while campaign.runs < arguments.runs and time.monotonic() < campaign.until:
            count = min(BLOCK, arguments.runs - campaign.runs)
            if arguments.missing:
                cases = missing_cases(arguments.results, arguments.classes, arguments.only)[
                    : arguments.runs - campaign.runs
                ]
            else:
                cases = next_cases(arguments.results, count, arguments.classes)
            if not cases:
                break
            campaign.run(list(chunks_of(cases)), arguments.stacks)
    print(f"{campaign.runs} runs, {len(campaign.failures)} with violations")
    if campaign.failures:
        print(f"what they left is in {home}")
    return 1 if campaign.failures else 0


if __name__ == "__main__":
    sys.exit(main())
