"""Data sets: files in, canonical records with a report, prepared token tables out. Imports no torch.

records, report = load_pairs(Path("preferences.jsonl"))
prepared = prepare_pairs(records, tokenizer, max_length=1024)
table = read_pairs(prepared.data)
"""

from quatrain.data.loading import load_pairs, load_prompts, load_sft
from quatrain.data.records import Drop, PairRecord, Prompt, PromptRecord, Record, SftRecord
from quatrain.data.report import Report, count_overlap, describe
from quatrain.data.rows import detect_format, read_rows
from quatrain.data.tables import (
    PairTable,
    Prepared,
    PromptTable,
    SftTable,
    prepare_pairs,
    prepare_prompts,
    prepare_sft,
    read_pairs,
    read_prompts,
    read_sft,
)

__all__ = [
    "Drop",
    "PairRecord",
    "PairTable",
    "Prepared",
    "Prompt",
    "PromptRecord",
    "PromptTable",
    "Record",
    "Report",
    "SftRecord",
    "SftTable",
    "count_overlap",
    "describe",
    "detect_format",
    "load_pairs",
    "load_prompts",
    "load_sft",
    "prepare_pairs",
    "prepare_prompts",
    "prepare_sft",
    "read_pairs",
    "read_prompts",
    "read_rows",
    "read_sft",
]
