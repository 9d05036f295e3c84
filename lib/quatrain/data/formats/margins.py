"""How much better the chosen answer is: the margin of a row, or the distance of its sides' scores."""

from quatrain.data import fields
from quatrain.data.fields import BadRow
from quatrain.data.formats.columns import scored_sides
from quatrain.data.records import Row
from quatrain.data.tally import Tally

REVERSED = "have a chosen answer that scores below the rejected one (score order reversed)"


def margin(row: Row, tally: Tally) -> float | None:
    """Return the margin, or else the distance of the scores. Reversed ones are counted and give none. Raises BadRow."""
    gain = _gain(row)
    if gain is not None and gain < 0:
        tally.count(REVERSED)
    found = fields.margin(row)
    return found if found is not None or gain is None or gain < 0 else gain


def _gain(row: Row) -> float | None:
    """Return how much higher chosen scores; None: there are no scores."""
    columns = scored_sides(list(row))
    if columns is None:
        return None
    try:
        scores = [fields.number(row[column], column) for column in columns]
        return fields.number(scores[0] - scores[1], "the margin")
    except BadRow:
        return None
