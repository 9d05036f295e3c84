"""What is counted while records pass by: a few numbers, and eight bytes a record for what repeats."""

import hashlib
from array import array
from collections import Counter
from dataclasses import dataclass, field

import numpy as np

from quatrain.data.records import Drop, PairRecord, Record
from quatrain.digests import canonical_json

MAX_DROPS = 1000
"""Dropped rows that are kept with line and reason; of the others only the reasons are counted."""
FEW = 4
"""Pairs below which shares say nothing."""
LONGER_SHARE = 0.7
"""Share of pairs in which chosen is the longer answer, from which length alone tells them apart."""
REPEATED_PROMPT = 10
"""Rows of one prompt, on average, from which a set of prompts is said to be few prompts."""
MAX_REASON = 160


@dataclass
class Observations:
    """Counts of one pass over a data set."""

    rows: int = 0
    kept: int = 0
    drops: list[Drop] = field(default_factory=list)
    reasons: Counter[str] = field(default_factory=Counter)
    first_lines: dict[str, int] = field(default_factory=dict)
    records: "array[int]" = field(default_factory=lambda: array("Q"))
    prompts: "array[int]" = field(default_factory=lambda: array("Q"))
    pairs: int = 0
    longer: int = 0
    texts: int = 0
    """Prompts that are bare text, no messages."""

    def drop(self, drop: Drop) -> None:
        """Count a row that is not used."""
        known = drop.reason in self.reasons or len(self.reasons) < MAX_DROPS
        reason = drop.reason if known else "another reason"
        self.reasons[reason] += 1
        self.first_lines.setdefault(reason, drop.line)
        if len(self.drops) < MAX_DROPS:
            self.drops.append(drop)

    def see(self, record: Record) -> None:
        """Count a record."""
        self.kept += 1
        self.records.append(fingerprint({**vars(record), "line": 0}))
        self.prompts.append(fingerprint(record.prompt))
        self.texts += isinstance(record.prompt, str)
        if isinstance(record, PairRecord):
            self.pairs += 1
            self.longer += len(record.chosen) > len(record.rejected)

    @property
    def dropped(self) -> int:
        """Return the number of rows that are not used."""
        return self.reasons.total()

    @property
    def duplicates(self) -> int:
        """Return the number of records equal to an earlier one in everything but the line."""
        return self.kept - count_distinct(self.records)

    @property
    def different_prompts(self) -> int:
        """Return the number of prompts that differ."""
        return count_distinct(self.prompts)

    def drop_notes(self) -> list[str]:
        """Return why rows are dropped: the commonest reasons, each with its count and first line."""
        if not self.reasons:
            return []
        shown = [
            f"{count}: {reason[:MAX_REASON]} (first line {self.first_lines[reason]})"
            for reason, count in self.reasons.most_common(3)
        ]
        others = len(self.reasons) - len(shown)
        more = [f"and {others} other reasons"] if others > 0 else []
        return [f"{self.dropped} of {self.rows} rows are dropped; {'; '.join([*shown, *more])}"]

    def warnings(self) -> list[str]:
        """Return what people should know of the records together."""
        found = self.drop_notes()
        if self.duplicates:
            found.append(f"{self.duplicates} rows repeat an earlier row")
        distinct = self.different_prompts
        if self.kept > 1 and distinct == 1:
            found.append(f"all {self.kept} rows have the same prompt")
        elif self.kept >= REPEATED_PROMPT * distinct:
            found.append(f"the {self.kept} rows have only {distinct} different prompts")
        if self.pairs >= FEW and self.longer > LONGER_SHARE * self.pairs:
            found.append(
                f"chosen is longer than rejected in {self.longer / self.pairs:.0%} of the pairs: a reward model may "
                "learn to pay for length"
            )
        return found


def fingerprint(value: object) -> int:
    """Return 64 bits to compare values by: of five million, two share them by chance once in a million times."""
    return int.from_bytes(hashlib.blake2b(canonical_json(value), digest_size=8).digest(), "big")


def count_common(values: "array[int]", known: "array[int]") -> int:
    """Return how many of the fingerprints are also among the known ones."""
    one, other = (np.frombuffer(each, dtype=np.uint64) for each in (values, known))
    return int(np.isin(one, other).sum()) if len(values) and len(known) else 0


def count_distinct(values: "array[int]") -> int:
    """Return how many of the fingerprints differ."""
    return int(np.unique(np.frombuffer(values, dtype=np.uint64)).size) if values else 0
