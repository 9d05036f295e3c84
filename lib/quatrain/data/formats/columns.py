"""Names of columns: which look as if they matter, and which belong to the one or the other of two answers."""

import re
from collections.abc import Iterable, Iterator, Sequence

from quatrain.data.records import Row

LABELS = frozenset(("label", "labels", "winner", "choice", "preference", "preferred", "better", "best", "rank"))
SCORES = frozenset(("score", "scores", "rating", "ratings", "reward", "rank", "votes", "upvotes", "winner", "quality"))
ASKED = frozenset(("system", "context", "input", "instruction", "history", "question", "query", "prompt"))
_MATTERS = LABELS | SCORES | ASKED | {"weight", "weights", "ranking", "safer", "worse", "vote", "margin", "strength"}
ANSWERS = frozenset(
    ("response", "answer", "completion", "output", "summary", "conversation", "ref", "reply", "text", "generation")
) | {"result", "candidate", "assistant", "messages", "continuation", "chat"}
_NEXT = {"a": "b", "A": "B", "0": "1", "1": "2", "j": "k"}


def words(column: str) -> set[str]:
    """Return the words of a column's name."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", column)
    return {word for word in re.split(r"[^a-z]+", parted.lower()) if word}


def matters(column: str) -> bool:
    """Return whether a column looks as if it said something about the prompt or the answers."""
    found = words(column)
    if found & {"source", "sha", "statement"} or (found & {"id", "ids"} and not found & (LABELS | {"safer"})):
        return False
    return bool(found & _MATTERS)


def filled(rows: Iterable[Row], column: str) -> bool:
    """Return whether any of the rows has a value in the column."""
    return any(row.get(column) not in (None, "", [], {}) for row in rows)


def two_sided(names: Sequence[str], stems: frozenset[str]) -> Iterator[tuple[str, str]]:
    """Yield columns that differ in the mark of a side only: response_0 and response_1, a_score and b_score."""
    for name in names:
        for mark, following in _NEXT.items():
            others = [name[:-1] + following] if name.endswith(mark) and not name[-2:-1].isdigit() else []
            others += [following + name[1:]] if name.startswith(f"{mark}_") else []
            for other in others:
                if other != name and other in names and words(name) & stems and name != mark:
                    yield name, other


def scored_sides(names: Sequence[str]) -> tuple[str, str] | None:
    """Return the columns with the scores of chosen and rejected, if there are such."""
    for name in names:
        other = name.replace("chosen", "rejected")
        if other != name and other in names and words(name) & SCORES:
            return name, other
    return None
