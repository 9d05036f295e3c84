"""What `format` and `label_rule` of a data set may hold. The conversions themselves are in `quatrain.data.formats`."""

from typing import Literal, get_args

FileFormat = Literal["jsonl", "json", "parquet", "csv", "arrow"]
KnownSet = Literal[
    "alpaca",
    "arena-33k",
    "arena-55k",
    "capybara",
    "dolly",
    "guanaco",
    "helpsteer2",
    "helpsteer2-preference",
    "helpsteer3",
    "hh-rlhf",
    "kto",
    "mt-bench",
    "nectar",
    "openorca",
    "orca-dpo-pairs",
    "pku-saferlhf",
    "sharegpt",
    "shp",
    "stack-exchange-paired",
    "summarize-from-feedback",
    "ultrafeedback",
    "ultrafeedback-binarized",
    "webgpt-comparisons",
]
LabelRule = Literal[
    "index-from-0", "index-from-1", "a-if-true", "name", "negative-is-a", "positive-is-a", "higher-score", "lower-score"
]
FILE_FORMATS: tuple[str, ...] = get_args(FileFormat)
KNOWN_SETS: tuple[str, ...] = get_args(KnownSet)
LABEL_RULES: tuple[str, ...] = get_args(LabelRule)
