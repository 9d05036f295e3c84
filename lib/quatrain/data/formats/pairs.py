"""Formats of preference pairs."""

from quatrain.data.fields import BadRow
from quatrain.data.formats import implicit, turns
from quatrain.data.formats.conversion import Conversion, is_list, is_text
from quatrain.data.formats.known import KNOWN
from quatrain.data.formats.margins import margin
from quatrain.data.formats.scored import SCORED
from quatrain.data.formats.unpaired import UNPAIRED
from quatrain.data.records import PairRecord, Row
from quatrain.data.tally import Tally


def _beside(row: Row, line: int, tally: Tally) -> PairRecord:
    return _record(row, implicit.beside_prompt(row, _prompt_column(row), tally), line, tally)


def _common_messages(row: Row, line: int, tally: Tally) -> PairRecord:
    return _record(row, implicit.common_messages(row, tally), line, tally)


def _transcripts(row: Row, line: int, tally: Tally) -> PairRecord:
    return _record(row, implicit.transcripts(row), line, tally)


def _common_text(row: Row, line: int, tally: Tally) -> PairRecord:
    return _record(row, implicit.common_text(row), line, tally)


def _record(row: Row, sides: implicit.Sides, line: int, tally: Tally) -> PairRecord:
    return PairRecord(*sides, margin(row, tally), line)


def _prompt_column(row: Row) -> str:
    for column in ("prompt", "messages", "conversations"):
        if row.get(column) is not None:
            return column
    raise BadRow("prompt is missing")


def _with_prompt(row: Row) -> bool:
    return _both(row) and any(row.get(column) is not None for column in ("prompt", "messages", "conversations"))


def _both(row: Row) -> bool:
    return "chosen" in row and "rejected" in row


def _whole(row: Row) -> bool:
    value = row.get("chosen")
    return isinstance(value, list) and len(value) > 1


def _alone(row: Row) -> bool:
    return _both(row) and not _with_prompt(row)


_USED = frozenset({"prompt", "messages", "conversations", "chosen", "rejected", "margin", *turns.SYSTEM_COLUMNS})

PAIRS: tuple[Conversion[PairRecord], ...] = (
    *KNOWN,
    *SCORED,
    UNPAIRED,
    Conversion(
        "trl-conversational",
        lambda r: _with_prompt(r) and is_list(r, "chosen") and not _whole(r),
        _beside,
        _USED,
        "`prompt` (or `messages`), `chosen` and `rejected` as one assistant message in a list",
    ),
    Conversion(
        "ultrafeedback-binarized",
        lambda r: _with_prompt(r) and _whole(r),
        _beside,
        _USED,
        "`prompt` beside whole conversations in `chosen` and `rejected`; the prompt column is compared and left out",
        known=True,
    ),
    Conversion(
        "trl-standard",
        lambda r: _with_prompt(r) and is_text(r, "prompt"),
        _beside,
        _USED,
        "`prompt`, `chosen`, `rejected` as texts, a prompt at the beginning of both sides is taken off",
    ),
    Conversion(
        "canonical",
        _with_prompt,
        _beside,
        _USED,
        "`prompt`, `messages` or `conversations` as messages, `chosen` and `rejected` as texts or one message",
    ),
    Conversion(
        "trl-conversational-implicit",
        lambda r: _alone(r) and is_list(r, "chosen"),
        _common_messages,
        _USED,
        "`chosen` and `rejected` as message lists that begin alike",
    ),
    Conversion(
        "hh-rlhf",
        lambda r: _alone(r) and turns.is_transcript(r.get("chosen")),
        _transcripts,
        _USED,
        '`chosen` and `rejected` transcripts, split at the last `"\\n\\nAssistant:"`',
        known=True,
    ),
    Conversion(
        "trl-standard-implicit",
        lambda r: _alone(r) and is_text(r, "chosen") and not turns.is_transcript(r.get("chosen")),
        _common_text,
        _USED,
        "`chosen` and `rejected` texts that begin alike; the prompt ends at a turn mark, or else at a line break or "
        "white space and is at most half of each side",
    ),
)
PAIRS_NEED = "chosen and rejected (with prompt, or with transcripts or texts that begin alike)"
