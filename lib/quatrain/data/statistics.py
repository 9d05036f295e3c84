"""Statistics of a data set: lengths, margins, and what tells the better answers apart without being better."""

import re
from array import array
from dataclasses import dataclass, field

from quatrain.data.observations import Observations, count_distinct, fingerprint
from quatrain.data.records import PairRecord, PromptRecord, Record, SftRecord
from quatrain.data.report import summary, token_parts
from quatrain.errors import InvalidData
from quatrain.text import Tokenizer

_NO_LETTERS = re.compile(r"[\W_]+")


@dataclass
class Statistics:
    """Figures of one pass, beside what the reading observes. With a tokenizer lengths are tokens, else characters."""

    tokenizer: Tokenizer | None = None
    lengths: dict[str, "array[int]"] = field(default_factory=dict)
    margins: "array[float]" = field(default_factory=lambda: array("d"))
    turns: "array[int]" = field(default_factory=lambda: array("I"))
    alike: "array[int]" = field(default_factory=lambda: array("Q"))
    """64 bits of each record without case, punctuation and spaces."""

    def see(self, record: Record) -> None:
        """Take in a record."""
        try:
            parts = _lengths(record, self.tokenizer)
        except InvalidData:
            return
        for name, length in parts.items():
            self.lengths.setdefault(name, array("I")).append(length)
        self.turns.append(1 if isinstance(record.prompt, str) else len(record.prompt))
        if isinstance(record, PairRecord) and record.margin is not None:
            self.margins.append(record.margin)
        self.alike.append(fingerprint([_NO_LETTERS.sub(" ", text).strip().casefold() for text in _texts(record)]))

    def to_json(self, seen: Observations) -> dict[str, object]:
        """Return the figures, with those of the same pass, as `data stats -o json` prints them."""
        figures: dict[str, object] = {
            "rows": seen.kept,
            "different_prompts": seen.different_prompts,
            "duplicates": seen.duplicates,
            "near_duplicates": len(self.alike) - count_distinct(self.alike),
            "unit": "characters" if self.tokenizer is None else "tokens",
            "lengths": {name: summary(lengths) for name, lengths in self.lengths.items()},
            "messages_in_prompt": summary(self.turns) if self.turns else None,
        }
        if seen.pairs:
            figures["chosen_longer_share"] = seen.longer / seen.pairs
            figures["margins"] = summary(self.margins) if self.margins else None
        return figures


def _lengths(record: Record, tokenizer: Tokenizer | None) -> dict[str, int]:
    if tokenizer is not None:
        return {name: len(ids) for name, ids in token_parts(record, tokenizer).items()}
    names = {SftRecord: ("completion",), PairRecord: ("chosen", "rejected"), PromptRecord: ()}[type(record)]
    prompt = record.prompt if isinstance(record.prompt, str) else "".join(turn["content"] for turn in record.prompt)
    return {"prompt": len(prompt), **{name: len(getattr(record, name)) for name in names}}


def _texts(record: Record) -> list[str]:
    prompt = [record.prompt] if isinstance(record.prompt, str) else [turn["content"] for turn in record.prompt]
    match record:
        case SftRecord():
            return [*prompt, record.completion]
        case PairRecord():
            return [*prompt, record.chosen, record.rejected]
        case _:
            return prompt
