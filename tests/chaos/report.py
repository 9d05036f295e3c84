"""Writes the tables of docs/reliability.md from the results of the campaign: `python -m tests.chaos.report`."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.campaign import RESULTS, read_rows
from tests.chaos.cases import PAIRS

from quatrain.faults import POINTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: made by python -m tests.chaos.report -->", "<!-- chaos: end -->"
CLASSES = {
    "A": "kill -9",
    "B": "stop past the lease, then go on",
    "C": "network between processes",
    "D": "Redis",
    "E": "object store",
    "F": "replays",
    "G": "poison",
    "H": "rolling restart, scaling",
    "I": "clock set by an hour",
}
Row = dict[str, Any]


def tables(rows: Sequence[Row]) -> str:
    """Everything between the marks."""
    reached = [row for row in rows if row["result"] != "unreached"]
    broken = [row for row in reached if row["result"] == "violated"]
    commits = sorted({(row["date"][:10], row["commit"]) for row in rows})
    torch = sum(row["flavour"] == "torch" for row in reached)
    lines = [
        f"{len(reached)} runs with a fault, {torch} of them on real models; {len(broken)} with a broken invariant. "
        f"{len(rows) - len(reached)} more ended before their fault came. Median of a run: "
        f"{statistics.median(row['seconds'] for row in reached):.1f} s, without a fault "
        f"{statistics.median(row['unbroken_seconds'] for row in reached):.1f} s. "
        f"Commits: {', '.join(f'`{commit}` ({date})' for date, commit in commits)}.",
        "",
        *_table(
            ("class", "fault", "on", "runs", "invariants broken", "recovery in s: median, longest"),
            (_summary(key, group) for key, group in _grouped(reached, _kind)),
        ),
        "",
        "Kills at named points, by process and point:",
        "",
        *_table(
            ("process", "point", "when it is", "kills", "broken", "recovery in s: median, longest"),
            (_pair(kind, point, reached) for kind, point in PAIRS),
        ),
    ]
    return "\n".join(lines)


def _kind(row: Row) -> tuple[str, str, str]:
    if row["point"]:
        return row["fault"], f"{row['what']} at a named point", row["process"]
    return row["fault"], row["what"], row["process"]


def _summary(key: tuple[str, str, str], group: Sequence[Row]) -> tuple[str, ...]:
    fault, what, process = key
    broken = sum(row["result"] == "violated" for row in group)
    return f"{fault} {CLASSES[fault]}", what, process, str(len(group)), str(broken), _recovery(group)


def _pair(kind: str, point: str, rows: Iterable[Row]) -> tuple[str, ...]:
    kills = [row for row in rows if (row["what"], row["process"], row["point"]) == ("kill", kind, point)]
    broken = sum(row["result"] == "violated" for row in kills)
    return kind, f"`{point}`", POINTS[point], str(len(kills)), str(broken), _recovery(kills)


def _recovery(rows: Iterable[Row]) -> str:
    """Without the runs on real models, whose processes load torch for most of that time."""
    seconds = sorted(row["recovery"] for row in rows if row["recovery"] is not None and row["flavour"] != "torch")
    return f"{statistics.median(seconds):.1f}, {seconds[-1]:.1f}" if seconds else ""


def _grouped(rows: Iterable[Row], key: Any) -> list[tuple[tuple[str, str, str], list[Row]]]:
    groups: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    return sorted(groups.items())


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    return [lines[0], "|---" * len(head) + "|", *lines[1:]]


def main() -> None:
    """Replaces what stands between the marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(read_rows(RESULTS))}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
