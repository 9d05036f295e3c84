"""A forgery: what was done to a good history, and what must find it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.checker_tests.histories import Copy

Forge = Callable[[Copy], Any]


@dataclass(frozen=True)
class Forgery:
    """`found_by` is the part that must find it; `also` are invariants that are broken with it by necessity."""

    story: str
    found_by: str
    forge: Forge
    also: frozenset[str] = field(default_factory=frozenset)
    unbroken: str = ""


class Table(dict[str, Forgery]):
    """Forgeries by name."""

    def enter(
        self, story: str, found_by: str, *, also: tuple[str, ...] = (), unbroken: str = ""
    ) -> Callable[[Forge], Forge]:
        """Decorates the function that forges a copy of a story."""

        def enter(forge: Forge) -> Forge:
            self[forge.__name__] = Forgery(story, found_by, forge, frozenset(also), unbroken)
            return forge

        return enter
