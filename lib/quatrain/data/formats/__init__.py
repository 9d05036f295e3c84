"""The formats of data sets: how each is recognised by its columns and how its rows become canonical records."""

from quatrain.data.formats.detect import Kind, Mapping, detect, detect_pairs
from quatrain.data.formats.labelled import find_labelled_columns
from quatrain.data.formats.pairs import PAIRS, PAIRS_NEED
from quatrain.data.formats.prompts import PROMPTS, PROMPTS_NEED
from quatrain.data.formats.sft import SFT, SFT_NEEDS
from quatrain.data.formats.unpaired import is_unpaired
from quatrain.data.records import Row

SFT_KIND = Kind("sft", SFT, SFT_NEEDS)
PAIRS_KIND = Kind("preferences", PAIRS, PAIRS_NEED)
PROMPTS_KIND = Kind("prompts", PROMPTS, PROMPTS_NEED)
_NAMED = (*((each.name, each.known) for each in SFT), *((each.name, each.known) for each in PAIRS))
KNOWN_SETS: tuple[str, ...] = tuple(sorted({name for name, known in _NAMED if known}))
"""The public sets that `format` may name; those of prompts are among them."""


def kind_of_row(row: Row) -> str:
    """Return sft, preferences or prompts: what a file with such rows is most likely for."""
    if "chosen" in row or "rejected" in row or {"a", "b"} <= row.keys() or any(each.fits(row) for each in PAIRS):
        return "sft" if is_unpaired(row) else "preferences"
    if find_labelled_columns(list(row)):
        return "preferences"
    return "sft" if any(each.fits(row) for each in SFT) else "prompts"


def kind_of_set(name: str) -> str:
    """Return sft or preferences: what a public set is most likely for."""
    if name != "kto" and any(each.name == name for each in PAIRS):
        return "preferences"
    return "sft"


__all__ = [
    "KNOWN_SETS",
    "PAIRS_KIND",
    "PROMPTS_KIND",
    "SFT_KIND",
    "Kind",
    "Mapping",
    "detect",
    "detect_pairs",
    "kind_of_row",
    "kind_of_set",
]
