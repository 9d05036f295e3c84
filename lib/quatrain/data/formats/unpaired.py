"""KTO's rows: a prompt, one answer and whether it is wanted. As pairs, neighbours with one prompt are joined."""

from quatrain.data.fields import BadRow
from quatrain.data.formats import turns
from quatrain.data.formats.conversion import Conversion, has
from quatrain.data.records import NumberedRow, PairRecord, Row
from quatrain.data.tally import Tally

_WORDS = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
LABEL_COLUMNS = ("label", "kto_tag", "desirable")
KTO_COLUMNS = frozenset({"prompt", "completion", *LABEL_COLUMNS})


def is_unpaired(row: Row) -> bool:
    """Return whether the row has a prompt, an answer and a label that is true or false."""
    return has(row, "prompt", "completion") and label(row) is not None


def label(row: Row) -> bool | None:
    """Return whether the answer is wanted, which tables have as a word or as 1 and 0; None: another label."""
    value = next((row[column] for column in LABEL_COLUMNS if column in row), None)
    if isinstance(value, bool):
        return value
    return _WORDS.get(str(value).lower()) if isinstance(value, str | int | float) else None


def _alone(row: Row, line: int, tally: Tally) -> PairRecord:
    raise BadRow("one answer is no pair")


def _join(rows: list[NumberedRow], tally: Tally) -> PairRecord:
    wanted = [row for row in rows if label(row[1]) is True]
    unwanted = [row for row in rows if label(row[1]) is False]
    if not wanted or not unwanted:
        raise BadRow("no neighbour has the same prompt and the other label, so there is no pair; sft can use the file")
    (line, better), (_, worse) = wanted[0], unwanted[0]
    if len(rows) > 2:
        tally.count("have more than two answers; the first with true and the first with false are the pair")
    tally.count("are pairs of a wanted and an unwanted answer that stand next to each other")
    chosen, rejected = (turns.answer(row, "completion", tally) for row in (better, worse))
    if chosen == rejected:
        raise BadRow("the wanted and the unwanted answer are equal")
    return PairRecord(turns.prompt(better, "prompt", tally), chosen, rejected, None, line)


UNPAIRED = Conversion(
    "kto",
    is_unpaired,
    _alone,
    KTO_COLUMNS | set(turns.SYSTEM_COLUMNS),
    "`prompt`, `completion`, boolean `label`; neighbours with one prompt and both labels become a pair",
    group=lambda row: row.get("prompt"),
    join=_join,
    known=True,
)
