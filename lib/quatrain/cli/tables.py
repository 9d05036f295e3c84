"""Lays tables out for a terminal: one line a row, no word broken; columns give way in an order where it is narrow."""

from collections.abc import Sequence
from dataclasses import dataclass

from rich.cells import cell_len, set_cell_size

GAP = 2


@dataclass(frozen=True)
class Column:
    """A column. Where the table is too wide, columns first shrink to `least` letters, then disappear, by `gives_way`.

    The lowest number gives way first; 0 never does: then only the end of the whole line is cut. `wide`: shown with
    `-o wide` only.
    """

    title: str
    gives_way: int = 0
    least: int = 0
    wide: bool = False


def layout(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int) -> tuple[list[str], list[str]]:
    """Return the lines of a table, the titles first, and the titles of the columns that had no room."""
    cells = [[column.title for column in columns], *rows]
    widths = [max(cell_len(row[at]) for row in cells) for at in range(len(columns))]
    order = sorted((at for at, column in enumerate(columns) if column.gives_way), key=lambda at: columns[at].gives_way)
    for at in order:
        least = max(columns[at].least, cell_len(columns[at].title))
        if columns[at].least:
            widths[at] = max(min(widths[at], least), widths[at] - max(0, _total(widths) - width))
    hidden = []
    for at in order:
        if _total(widths) > width:
            widths[at] = 0
            hidden.append(columns[at].title)
    lines = [_line(row, widths) for row in cells]
    return [shortened(line, width) for line in lines], hidden


def shortened(text: str, width: int) -> str:
    """Return the text in `width` cells; an ellipsis stands for what was cut off."""
    if cell_len(text) <= width:
        return text
    return set_cell_size(text, width - 1).rstrip() + "…"


def _total(widths: Sequence[int]) -> int:
    shown = [width for width in widths if width]
    return sum(shown) + GAP * (len(shown) - 1)


def _line(row: Sequence[str], widths: Sequence[int]) -> str:
    shown = [set_cell_size(shortened(cell, width), width) for cell, width in zip(row, widths, strict=True) if width]
    return (" " * GAP).join(shown).rstrip()
