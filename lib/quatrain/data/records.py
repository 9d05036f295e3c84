"""Canonical records: what every data format becomes."""

from collections.abc import Mapping
from dataclasses import dataclass

Row = Mapping[str, object]
"""A row of a data file: its values by column. Parquet has values that JSON lacks, such as dates and bytes."""

NumberedRow = tuple[int, Row]
"""The line of the file at which the row begins, and the row."""

Message = dict[str, str]
"""A turn of a conversation: its `role` and its `content`."""

Prompt = str | list[Message]
"""A prompt: a text that is tokenised as it is, or messages that go through the chat template."""


@dataclass(frozen=True)
class Drop:
    """A row that is not used: its line (1 is the first line, or the first row of a Parquet file) and the reason."""

    line: int
    reason: str


@dataclass(frozen=True)
class SftRecord:
    """A prompt and the completion to learn; after messages the completion is the assistant's next message."""

    prompt: Prompt
    completion: str
    line: int


@dataclass(frozen=True)
class PairRecord:
    """A prompt with a better and a worse answer. margin: how much better, in units of the score, or None."""

    prompt: Prompt
    chosen: str
    rejected: str
    margin: float | None
    line: int


@dataclass(frozen=True)
class PromptRecord:
    """A prompt for rollouts and the row's other columns (JSON values), which reward functions receive."""

    prompt: Prompt
    extra: dict[str, object]
    line: int


Record = SftRecord | PairRecord | PromptRecord
