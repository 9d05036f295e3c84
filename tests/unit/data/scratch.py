"""Prepared tables in files of their own, for tests that look at the bytes."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

from quatrain import data
from quatrain.data import PairRecord, Prepared, PromptRecord, SftRecord
from quatrain.text import Tokenizer


def _path() -> Path:
    return Path(tempfile.mkdtemp(prefix="quatrain-table-")) / "table"


def prepare_sft(records: Sequence[SftRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    return data.prepare_sft(records, tokenizer, max_length, _path())


def prepare_pairs(records: Sequence[PairRecord], tokenizer: Tokenizer, max_length: int) -> Prepared:
    return data.prepare_pairs(records, tokenizer, max_length, _path())


def prepare_prompts(
    records: Sequence[PromptRecord], tokenizer: Tokenizer, longest: int, truncate: str = "refuse"
) -> Prepared:
    return data.prepare_prompts(records, tokenizer, longest, _path(), truncate)
