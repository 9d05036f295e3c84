"""Counts of what the conversion of a file decided about rows, for its warnings."""

from collections import Counter
from dataclasses import dataclass, field

ENOUGH = 20
"""Labels from which on their balance says something."""


@dataclass
class Tally:
    """A counter of decisions, each a phrase that goes on after "3 rows"; the phrases are few constants."""

    counts: Counter[str] = field(default_factory=Counter)
    judged: int = 0
    first_better: int = 0

    def count(self, what: str) -> None:
        """Count a row of which `what` is true."""
        self.counts[what] += 1

    def judge(self, first_is_better: bool) -> None:
        """Count a label that says which of two answers is the better one."""
        self.judged += 1
        self.first_better += first_is_better

    def warnings(self) -> list[str]:
        """Return a sentence for each phrase."""
        found = [f"{number} rows {what}" for what, number in self.counts.items()]
        if self.judged >= ENOUGH and not 0.05 <= self.first_better / self.judged <= 0.95:
            found.append(
                f"the label says of {self.first_better} of {self.judged} rows that the first answer is better; "
                "labels are seldom that one-sided: see that it is the right column and rule"
            )
        return found
