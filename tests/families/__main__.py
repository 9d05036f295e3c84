"""`make families`: a job of every family through the local stack; writes results.json and the table of docs/models.md.

With words as arguments, the families whose titles hold one of them.
"""

import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.e2e.stack import running_stack
from tests.families.jobs import Outcome, refuse_family, run_family
from tests.families.table import write_results
from tests.unit.models.families import FAMILIES, REFUSED_FAMILIES


def run_all(home: Path, words: Sequence[str] = ()) -> list[Outcome]:
    """Return the outcomes of all families, or of those whose titles hold one of the words."""
    outcomes: list[Outcome] = []
    with running_stack(home / "stack") as stack, stack.client() as client:
        for index, family in enumerate((*FAMILIES, *REFUSED_FAMILIES)):
            if words and not any(word in family.title for word in words):
                continue
            folder = home / f"family-{index}"
            folder.mkdir()
            refused = family in REFUSED_FAMILIES
            outcomes.append(
                refuse_family(client, family, folder) if refused else run_family(stack, client, family, folder)
            )
            print(outcomes[-1], flush=True)
    return outcomes


def main() -> None:
    """Run all families and store what came of them; with words as arguments some of them, and store nothing."""
    with tempfile.TemporaryDirectory() as home:
        outcomes = run_all(Path(home), sys.argv[1:])
    if not sys.argv[1:]:
        write_results(outcomes)


if __name__ == "__main__":
    main()
