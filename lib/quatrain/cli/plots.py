"""Numbers as text: sparklines and plots of block characters."""

from collections.abc import Sequence
from itertools import pairwise

BLOCKS = "▁▂▃▄▅▆▇█"
Values = Sequence[float | None]


def sparkline(values: Values, width: int = 24) -> str:
    """Return the newest values as blocks, lowest to highest; a space where there is no number."""
    shown = values[-width:]
    numbers = [value for value in shown if value is not None]
    if not numbers:
        return ""
    low, high = min(numbers), max(numbers)
    span = high - low
    top = len(BLOCKS) - 1
    # Equal values are all drawn in the middle.
    levels = [" " if v is None else BLOCKS[round((v - low) / span * top) if span else top // 2] for v in shown]
    return "".join(levels)


def plot(title: str, steps: Sequence[int], values: Values, *, width: int = 72, height: int = 8) -> str:
    """Return a plot with its range on the left and its steps below. Many values are averaged into `width` columns."""
    points = [(step, value) for step, value in zip(steps, values, strict=True) if value is not None]
    if not points:
        return f"{title}\n  (no values)\n"
    columns = _columns([value for _, value in points], width)
    low, high = min(columns), max(columns)
    span = (high - low) or 1.0
    cells = height * len(BLOCKS)
    filled = [round((value - low) / span * (cells - 1)) + 1 for value in columns]
    labels = [f"{high:.4g}", *[""] * (height - 2), f"{low:.4g}"]
    margin = max(len(label) for label in labels)
    lines = [title]
    for row in range(height):
        floor = (height - 1 - row) * len(BLOCKS)
        body = "".join(_cell(level - floor) for level in filled)
        lines.append(f"{labels[row]:>{margin}} ┤{body}")
    first, last = str(points[0][0]), str(points[-1][0])
    gap = max(1, len(columns) - len(first) - len(last))
    lines.append(f"{'':>{margin}} └{'─' * len(columns)}")
    lines.append(f"{'':>{margin}}  {first}{' ' * gap}{last if last != first else ''}".rstrip() + "  (step)")
    return "\n".join(lines) + "\n"


def _cell(level: int) -> str:
    if level <= 0:
        return " "
    return BLOCKS[min(level, len(BLOCKS)) - 1]


def _columns(values: list[float], width: int) -> list[float]:
    if len(values) <= width:
        return values
    edges = [i * len(values) // width for i in range(width + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
