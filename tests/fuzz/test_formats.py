"""Conversions against arbitrary JSON in the columns that they know: records, drops or InvalidData, nothing else."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from tests.unit.data.formats import PAIRS, SFT

from quatrain.data import load_pairs, load_prompts, load_sft
from quatrain.data.formats import KNOWN_SETS, kind_of_row
from quatrain.digests import canonical_json
from quatrain.errors import InvalidData
from quatrain.jobspec.data_formats import LABEL_RULES

ROWS = [*(case[1] for case in PAIRS), *(case[1] for case in SFT)]
COLUMNS = sorted(
    {column for row in ROWS for column in row} | {"system", "margin", "a", "b", "label", "text", "", "messages"}
)
WORDS = [
    "",
    " ",
    "tie",
    "a",
    "model_b",
    "1",
    "-1",
    "nan",
    "true",
    "user",
    "human",
    "text",
    "x\n\nAssistant: y",
    "### Human: x",
]
WORDS += ['["x"]', "[null]", "[{}]", "[" * 50]
LEAVES = (
    some.none()
    | some.booleans()
    | some.integers(-3, 3)
    | some.floats(allow_nan=False, allow_infinity=False)
    | some.sampled_from(WORDS)
)
KEYS = some.sampled_from(
    ["role", "content", "from", "value", "text", "input", "output", "response", "rank", "answer", "type"]
)
VALUES = some.recursive(
    LEAVES, lambda inner: some.lists(inner, max_size=3) | some.dictionaries(KEYS, inner, max_size=3)
)
SPOILED = some.builds(
    lambda row, changes, gone: {name: value for name, value in {**row, **changes}.items() if name not in gone},
    some.sampled_from(ROWS),
    some.dictionaries(some.sampled_from(COLUMNS), VALUES, max_size=2),
    some.sets(some.sampled_from(COLUMNS), max_size=2),
)
FILES = some.lists(SPOILED | some.dictionaries(some.sampled_from(COLUMNS), VALUES, max_size=5), min_size=1, max_size=5)


LOADS: tuple[Any, ...] = (
    lambda path, format, columns, rule: load_sft(path, format, columns),
    lambda path, format, columns, rule: load_prompts(path, format, columns),
    load_pairs,
)


def check(rows: list[dict[str, Any]], format: str | None, columns: dict[str, str], rule: str | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.jsonl"
        path.write_bytes(b"".join(canonical_json(row) + b"\n" for row in rows))
        for load in LOADS:
            try:
                records, report = load(path, format, columns, rule)
            except InvalidData:
                continue
            assert (len(records), report.rows) == (report.kept, report.kept + len(report.dropped))
            for record in records:
                answers = [
                    getattr(record, side) for side in ("chosen", "rejected", "completion") if hasattr(record, side)
                ]
                assert all(isinstance(answer, str) and answer.strip() for answer in answers)
                assert len(set(answers)) == len(answers)
                assert record.prompt
    assert all(kind_of_row(row) in ("sft", "preferences", "prompts") for row in rows)


MAPPED = some.dictionaries(
    some.sampled_from(["prompt", "a", "b", "label", "chosen"]), some.sampled_from(COLUMNS[1:]), max_size=3
)
Case = tuple[list[dict[str, Any]], str | None, dict[str, str], str | None]
CASES: some.SearchStrategy[Case] = some.tuples(
    FILES,
    some.none() | some.sampled_from(KNOWN_SETS),
    some.just({}) | MAPPED,
    some.none() | some.sampled_from(LABEL_RULES),
)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_any_rows_are_read_or_refused(case: Case) -> None:
    check(*case)


@pytest.mark.slow
@pytest.mark.timeout(900)
@settings(max_examples=4_000, deadline=None, suppress_health_check=list(HealthCheck))
@given(CASES)
def test_many_more_rows(case: Case) -> None:
    check(*case)
