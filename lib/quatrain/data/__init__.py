"""Data sets: files in, canonical records with a report, prepared token tables out. Imports no torch.

reading = open_pairs(DataFiles.of(Path("preferences.jsonl")))
prepared = prepare_pairs(reading, tokenizer, 1024, Path("pairs.parquet"))
table = read_pairs(prepared.data)
"""

from quatrain.data.canonical import canonical_row
from quatrain.data.files import DataFile, DataFiles, read_files
from quatrain.data.formats import KNOWN_SETS, Mapping, kind_of_row, kind_of_set
from quatrain.data.loading import (
    Reading,
    asked,
    load_pairs,
    load_prompts,
    load_sft,
    open_pairs,
    open_prompts,
    open_sft,
)
from quatrain.data.observations import count_common, fingerprint
from quatrain.data.preparing import PairsWriter, Prepared, prepare_pairs, prepare_prompts, prepare_sft
from quatrain.data.records import Drop, PairRecord, Prompt, PromptRecord, Record, SftRecord
from quatrain.data.report import Description, Report, token_parts
from quatrain.data.splitting import held_out_prompts
from quatrain.data.statistics import Statistics
from quatrain.data.tables import (
    PairTable,
    PromptTable,
    SftTable,
    read_pairs,
    read_prompts,
    read_sft,
)

__all__ = [
    "KNOWN_SETS",
    "DataFile",
    "DataFiles",
    "Description",
    "Drop",
    "Mapping",
    "PairRecord",
    "PairTable",
    "PairsWriter",
    "Prepared",
    "Prompt",
    "PromptRecord",
    "PromptTable",
    "Reading",
    "Record",
    "Report",
    "SftRecord",
    "SftTable",
    "Statistics",
    "asked",
    "canonical_row",
    "count_common",
    "fingerprint",
    "held_out_prompts",
    "kind_of_row",
    "kind_of_set",
    "load_pairs",
    "load_prompts",
    "load_sft",
    "open_pairs",
    "open_prompts",
    "open_sft",
    "prepare_pairs",
    "prepare_prompts",
    "prepare_sft",
    "read_files",
    "read_pairs",
    "read_prompts",
    "read_sft",
    "token_parts",
]
