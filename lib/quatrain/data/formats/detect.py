"""Which format a file has: by all columns of its first rows, with a word for what is not used."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from quatrain.data.formats.columns import ASKED, LABELS, filled, matters, scored_sides, two_sided, words
from quatrain.data.formats.columns import SCORES as SCORE_WORDS
from quatrain.data.formats.conversion import Conversion, is_text
from quatrain.data.formats.labelled import find_labelled
from quatrain.data.records import PairRecord, Record, Row
from quatrain.errors import InvalidData

R = TypeVar("R", bound=Record)
IMPLICIT = "trl-standard-implicit"
_ABOUT_THE_ROW = frozenset(("id", "source", "dataset", "split", "model", "lang", "language", "category", "url"))


@dataclass(frozen=True)
class Kind(Generic[R]):
    """A kind of data set: what it is for, its formats from the most special to the most general, and needed columns."""

    name: str
    formats: tuple[Conversion[R], ...]
    needs: str


@dataclass(frozen=True)
class Mapping:
    """What a person said about a file: the name of a known set, canonical to own column names, the label's rule."""

    name: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    label_rule: str | None = None


def detect(rows: Sequence[Row], kind: Kind[R], said: Mapping) -> tuple[Conversion[R], tuple[str, ...]]:
    """Return the format that most of the first rows have, the more special one of two, and notes on it.

    Raises InvalidData: no format, a prompt that would have to be guessed, or a label that the mapping leaves out.
    """
    names = list(dict.fromkeys(name for row in rows for name in row))
    conversion = _choose(rows, kind, said)
    if conversion is None:
        raise InvalidData(_no_format(rows, names, kind.needs, said))
    if conversion.name == IMPLICIT:
        _check_no_question(rows, names)
    return conversion, tuple(_unused(rows, names, conversion, kind.name))


def detect_pairs(
    rows: Sequence[Row], kind: Kind[PairRecord], said: Mapping
) -> tuple[Conversion[PairRecord], tuple[str, ...]]:
    """Return the format of preference pairs: as `detect`, or that of two answers with a label. Raises InvalidData."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    _check_mapping(rows, names, said)
    by_label = bool({"a", "b"} & said.columns.keys() or said.label_rule)
    if said.name is None and (by_label or _choose(rows, kind, said) is None):
        labelled = find_labelled(rows, names, said.label_rule, said.columns)
        if labelled is not None:
            return labelled, (
                f"the pairs are made by a label: {labelled.doc}",
                *_unused(rows, names, labelled, kind.name),
            )
    return detect(rows, kind, said)


def _choose(rows: Sequence[Row], kind: Kind[R], said: Mapping) -> Conversion[R] | None:
    named = [each for each in kind.formats if said.name is None or each.name == said.name]
    if not named:
        of_kind = ", ".join(dict.fromkeys(each.name for each in kind.formats if each.known))
        raise InvalidData(f"The format {said.name} is none of {kind.name}; their known sets are {of_kind}.")
    counts = [sum(map(each.fits, rows)) for each in named]
    best = counts.index(max(counts))
    if counts[best]:
        return named[best]
    if said.name is not None:
        raise InvalidData(f"No row has the columns of the format {said.name}: {named[0].doc}.")
    return None


def _check_mapping(rows: Sequence[Row], names: Sequence[str], said: Mapping) -> None:
    """Refuse a mapping onto chosen and rejected that leaves out what says which answer is better."""
    if not {"chosen", "rejected"} & said.columns.keys():
        return
    scores = [name for pair in two_sided(names, SCORE_WORDS) for name in pair]
    labels = [name for name in names if words(name) & LABELS and "id" not in words(name) - {"better"}] + scores
    labels += [name for name in names if {"better", "id"} <= words(name) or "strength" in words(name)]
    left = [name for name in dict.fromkeys(labels) if name not in ("chosen", "rejected") and filled(rows, name)]
    if left:
        a, b = said.columns.get("chosen", "chosen"), said.columns.get("rejected", "rejected")
        prompt = said.columns.get("prompt", "prompt")
        way = (
            f"{{prompt: {prompt}, a: {a}, b: {b}}}` and `label_rule: higher-score"
            if left[0] in scores
            else f"{{prompt: {prompt}, a: {a}, b: {b}, label: {left[0]}}}"
        )
        raise InvalidData(
            f"`columns` maps {a} to chosen and {b} to rejected in every row, while the column {left[0]} looks as if it "
            f"said which of them is better. Use `columns: {way}`."
        )


def _check_no_question(rows: Sequence[Row], names: Sequence[str]) -> None:
    """Refuse to read a prompt off the answers where another column of text may hold it."""
    others = [
        name
        for name in names
        if name not in ("chosen", "rejected")
        and not words(name) & _ABOUT_THE_ROW
        and any(is_text(row, name) and str(row[name]).strip() for row in rows)
    ]
    others.sort(key=lambda name: (not words(name) & (ASKED - {"system"}), name == "system"))
    if others:
        raise InvalidData(
            f"There is no column `prompt`, and {', '.join(others[:4])} may hold it. Say which with "
            f"`columns: {{prompt: {others[0]}}}`."
        )


def _unused(rows: Sequence[Row], names: Sequence[str], conversion: Conversion[R], kind: str) -> list[str]:
    used = conversion.used | set(scored_sides(names) or () if kind == "preferences" else ())
    left = [name for name in names if name not in used and matters(name) and filled(rows, name)]
    if kind == "prompts":  # reward functions receive the other columns, so nothing is lost but what is asked
        left = [name for name in left if words(name) & ASKED]
    return [f"the column {name} is not used; {_what_to_do(name, kind)}" for name in left]


def _what_to_do(name: str, kind: str) -> str:
    if words(name) & ASKED:
        return "if it belongs to the prompt, join it to `prompt`, or write it into `messages`"
    if kind == "preferences":
        return "if it says which answer is better, map it: `columns: {a: ..., b: ..., label: " + name + "}`"
    return "if it says which rows are good, keep only those in the file"


def _no_format(rows: Sequence[Row], names: Sequence[str], needs: str, said: Mapping) -> str:
    missing = [f"{canonical}: {source}" for canonical, source in said.columns.items() if canonical not in names]
    mapped = f" The mapping `columns` names what is not there: {', '.join(missing)}." if missing else ""
    asked = [name for name in names if matters(name) and words(name) & (ASKED - {"system"}) and filled(rows, name)]
    hint = f" For example `columns: {{prompt: {asked[0]}}}`." if asked and "prompt" not in names else ""
    return (
        f"The columns are {', '.join(names)}; needed: {needs}.{mapped} "
        f"Rename the columns or map them with `columns`.{hint}"
    )
