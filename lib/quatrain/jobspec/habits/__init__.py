"""What the options of TRL, OpenRLHF and verl are called here, or why there is no such field.

One table for two uses: an unknown key of a spec gets its line as a hint, and `quatrain spec import` fills fields by it.
"""

from quatrain.jobspec.habits.counterpart import Counterpart
from quatrain.jobspec.habits.openrlhf import DOTTED, OPENRLHF
from quatrain.jobspec.habits.openrlhf import SECTIONS as OPENRLHF_SECTIONS
from quatrain.jobspec.habits.trl import TRL
from quatrain.jobspec.habits.verl import SECTIONS as VERL_SECTIONS
from quatrain.jobspec.habits.verl import VERL

TOOLS: dict[str, dict[str, Counterpart]] = {
    "trl": TRL,
    "openrlhf": OPENRLHF | {dotted: OPENRLHF[flat] for dotted, flat in DOTTED.items()},
    "verl": VERL,
}
SECTIONS: dict[str, dict[str, Counterpart]] = {"trl": {}, "openrlhf": OPENRLHF_SECTIONS, "verl": VERL_SECTIONS}
"""By tool, the beginnings of names that share one line."""

# A person who writes verl's options into a spec writes the last word of each; the first of two with the same counts.
_VERL_KEYS = {name.rpartition(".")[2]: value for name, value in reversed(VERL.items())}

__all__ = ["SECTIONS", "TOOLS", "Counterpart", "counterpart", "line_of"]


def counterpart(key: str) -> Counterpart | None:
    """Return what a single key of another tool is here; None for a key that none of them has."""
    return TRL.get(key) or OPENRLHF.get(key) or _VERL_KEYS.get(key)


def line_of(tool: str, option: str) -> Counterpart | None:
    """Return what an option of a tool is here, by its name or its section; None for one that is not known."""
    found = TOOLS[tool].get(option)
    return found or next((line for start, line in SECTIONS[tool].items() if option.startswith(start)), None)
