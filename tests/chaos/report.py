"""Writes the tables of docs/reliability.md from the results of the campaign: `python -m tests.chaos.report`."""

import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from tests.chaos.campaign import RESULTS, read_rows
from tests.chaos.cases import LINK_FAULTS, LINKS, PAIRS

from quatrain.faults import POINTS

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
BEGIN, END = "<!-- chaos: made by python -m tests.chaos.report -->", "<!-- chaos: end -->"
CLASSES = {
    "A": "kill -9",
    "B": "stop for longer than the lease, then continue",
    "C": "network between processes",
    "D": "Redis",
    "E": "object store",
    "F": "repeated requests and entries",
    "G": "damaged entries",
    "H": "rolling restart, scaling",
    "I": "clock set by an hour",
}
BESIDE = {
    "fork": "the job is being forked from another one",
    "delete": "the source of the fork is being deleted",
    "release": "the checkpoint that the fork came from is being deleted",
    "upload": "a file is being uploaded",
    "import": "a model is being uploaded and imported",
    "large": "every result goes through the object store",
}
Row = dict[str, Any]


def tables(rows: Sequence[Row]) -> str:
    """Return the text between the marks."""
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
        "Faults of the connections between processes: runs, (broken invariants), longest recovery in s:",
        "",
        *_table(
            ("from - to", *LINK_FAULTS),
            (_link(link, [row for row in reached if row["fault"] == "C"]) for link in LINKS),
        ),
        "",
        "Kills and Redis faults during another operation:",
        "",
        *_table(
            ("meanwhile", "faults", "invariants broken", "recovery in s: median, longest"),
            (_beside(what, reached) for what in BESIDE),
        ),
        "",
        "Kills and stops at named points, by process and point:",
        "",
        *_table(
            (
                "process",
                "point",
                "when it is",
                "kills",
                "stops",
                "broken",
                "recovery from a kill in s: median, longest",
            ),
            (_pair(kind, point, reached) for kind, point in PAIRS),
        ),
    ]
    return "\n".join(lines)


def _link(link: str, rows: Sequence[Row]) -> tuple[str, ...]:
    cells = []
    for what in LINK_FAULTS:
        found = [row for row in rows if (row["process"], row["what"]) == (link, what)]
        broken = sum(row["result"] == "violated" for row in found)
        longest = max((row["recovery"] for row in found if row["recovery"] is not None), default=None)
        cells.append(f"{len(found)} ({broken}){'' if longest is None else f', {longest:.1f}'}")
    return link.replace("-", " - "), *cells


def _beside(what: str, rows: Sequence[Row]) -> tuple[str, ...]:
    found = [row for row in rows if what in (row["variant"], row["flavour"])]
    broken = sum(row["result"] == "violated" for row in found)
    return BESIDE[what], str(len(found)), str(broken), _recovery(found)


def _kind(row: Row) -> tuple[str, str, str]:
    if row["fault"] == "C":
        return row["fault"], row["what"], "every link"
    if row["point"]:
        return row["fault"], f"{row['what']} at a named point", row["process"]
    return row["fault"], row["what"], row["process"]


def _summary(key: tuple[str, str, str], group: Sequence[Row]) -> tuple[str, ...]:
    fault, what, process = key
    broken = sum(row["result"] == "violated" for row in group)
    return f"{fault} {CLASSES[fault]}", what, process, str(len(group)), str(broken), _recovery(group)


def _pair(kind: str, point: str, rows: Iterable[Row]) -> tuple[str, ...]:
    found = [row for row in rows if (row["process"], row["point"]) == (kind, point)]
    kills, stops = ([row for row in found if row["what"] == what] for what in ("kill", "stop"))
    broken = sum(row["result"] == "violated" for row in found)
    return kind, f"`{point}`", POINTS[point], str(len(kills)), str(len(stops)), str(broken), _recovery(kills)


def _recovery(rows: Iterable[Row]) -> str:
    """Return median and longest recovery, without the runs on real models, which load torch for most of that time."""
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
    """Replace the text between the marks."""
    text = DOCUMENT.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    after = rest.partition(END)[2]
    DOCUMENT.write_text(f"{before}{BEGIN}\n{tables(read_rows(RESULTS))}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
