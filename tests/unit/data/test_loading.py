"""Every format of rows becomes the canonical records; bad rows are dropped, wrong columns refused."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quatrain.data import PairRecord, PromptRecord, SftRecord, load_pairs, load_prompts, load_sft
from quatrain.errors import InvalidData

HH = "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Bye\n\nAssistant:"
USER = {"role": "user", "content": "Hi"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "format", "record"),
    [
        ({"prompt": "a", "completion": " b"}, "trl-standard", SftRecord("a", " b", 1)),
        ({"prompt": [USER], "completion": [said("b")]}, "trl-conversational", SftRecord([USER], "b", 1)),
        ({"prompt": [USER], "completion": "b"}, "canonical", SftRecord([USER], "b", 1)),
        ({"messages": [USER, said("b")]}, "trl-conversational-messages", SftRecord([USER], "b", 1)),
        ({"chosen": HH + " x", "rejected": HH + " y"}, "hh-rlhf", SftRecord(HH, " x", 1)),
    ],
)
def test_sft_formats(row: dict[str, Any], format: str, record: SftRecord, tmp_path: Path) -> None:
    records, report = load_sft(jsonl(tmp_path, row))

    assert records == [record]
    assert (report.format, report.rows, report.kept, report.dropped) == (format, 1, 1, ())


@pytest.mark.parametrize(
    ("row", "format", "record"),
    [
        (
            {"prompt": "a", "chosen": "b", "rejected": "c", "margin": 2},
            "trl-standard",
            PairRecord("a", "b", "c", 2.0, 1),
        ),
        (
            {"prompt": [USER], "chosen": [said("b")], "rejected": [said("c")]},
            "trl-conversational",
            PairRecord([USER], "b", "c", None, 1),
        ),
        ({"messages": [USER], "chosen": "b", "rejected": "c"}, "canonical", PairRecord([USER], "b", "c", None, 1)),
        ({"chosen": HH + " x", "rejected": HH + " y"}, "hh-rlhf", PairRecord(HH, " x", " y", None, 1)),
        (
            {"chosen": "The sky is blue in the morning.", "rejected": "The sky is a great green cheese."},
            "trl-standard-implicit",
            PairRecord("The sky is", " blue in the morning.", " a great green cheese.", None, 1),
        ),
        (
            {"chosen": [USER, said("b")], "rejected": [USER, said("c")]},
            "trl-conversational-implicit",
            PairRecord([USER], "b", "c", None, 1),
        ),
    ],
)
def test_pair_formats(row: dict[str, Any], format: str, record: PairRecord, tmp_path: Path) -> None:
    records, report = load_pairs(jsonl(tmp_path, row))

    assert records == [record]
    assert report.format == format


@pytest.mark.parametrize(
    ("row", "record"),
    [
        ({"prompt": "a", "answer": 4, "tags": ["x"]}, PromptRecord("a", {"answer": 4, "tags": ["x"]}, 1)),
        ({"prompt": [USER]}, PromptRecord([USER], {}, 1)),
        ({"messages": [USER, said("b")], "k": None}, PromptRecord([USER], {"k": None}, 1)),
        ({"chosen": HH + " x", "rejected": HH + " y"}, PromptRecord(HH, {}, 1)),
    ],
)
def test_prompt_formats(row: dict[str, Any], record: PromptRecord, tmp_path: Path) -> None:
    records, _ = load_prompts(jsonl(tmp_path, row))

    assert records == [record]


def test_transcripts_split_at_the_last_assistant(tmp_path: Path) -> None:
    inner = HH + " one\n\nHuman: two\n\nAssistant:"

    records, _ = load_pairs(jsonl(tmp_path, {"chosen": inner + " x\n\nHuman?", "rejected": inner + " y"}))

    assert (records[0].prompt, records[0].chosen) == (inner, " x\n\nHuman?")


def test_messages_from_parquet_lose_their_null_fields(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    messages = [{**USER, "name": None}]
    rows = [{"prompt": messages, "chosen": [said("b")], "rejected": [said("c")]}]
    schema = pa.schema(
        [
            (name, pa.list_(pa.struct([("role", pa.string()), ("content", pa.string()), ("name", pa.string())])))
            for name in ("prompt", "chosen", "rejected")
        ]
    )
    pq.write_table(pa.Table.from_pylist(rows, schema=schema), path)

    records, _ = load_pairs(path)

    assert records == [PairRecord([USER], "b", "c", None, 1)]


GOOD = {"prompt": "p", "chosen": "a", "rejected": "b"}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({**GOOD, "chosen": None}, "chosen is missing"),
        ({"prompt": "p", "chosen": "a"}, "rejected is missing"),
        ({**GOOD, "chosen": 3}, "chosen must be text, not a number"),
        ({**GOOD, "prompt": ""}, "prompt is empty"),
        ({**GOOD, "prompt": []}, "at least one message"),
        ({**GOOD, "prompt": ["x"]}, "prompt[0] must be a message"),
        ({**GOOD, "prompt": [{"role": "robot", "content": "x"}]}, "prompt[0].role"),
        ({**GOOD, "prompt": [{"role": "user", "content": [1]}]}, "prompt[0].content must be text, not a list"),
        ({**GOOD, "prompt": "  "}, "prompt is blank"),
        ({**GOOD, "rejected": " "}, "rejected is empty"),
        ({**GOOD, "prompt": [{**USER, "tool_calls": [1]}]}, "'tool_calls'"),
        ({**GOOD, "chosen": [USER]}, "must be one assistant message, it is user"),
        ({**GOOD, "rejected": "a"}, "chosen and rejected are equal"),
        ({**GOOD, "margin": "x"}, "margin must be a number"),
        ({**GOOD, "margin": -1}, "margin must be a number from 0"),
        ({**GOOD, "margin": True}, "margin must be a number"),
        ({**GOOD, "chosen": "\ud800"}, "surrogate"),
        ({}, "missing"),
    ],
)
def test_bad_rows_are_dropped_with_line_and_reason(row: dict[str, Any], reason: str, tmp_path: Path) -> None:
    records, report = load_pairs(jsonl(tmp_path, GOOD, row, {**GOOD, "chosen": "z"}))

    assert [record.line for record in records] == [1, 3]
    assert (report.rows, report.kept) == (3, 2)
    assert [drop.line for drop in report.dropped] == [2]
    assert reason in report.dropped[0].reason


def test_transcripts_with_other_prompts_are_dropped(tmp_path: Path) -> None:
    good = {"chosen": HH + " x", "rejected": HH + " y"}
    other = {"chosen": HH + " x", "rejected": "\n\nHuman: else\n\nAssistant: y"}

    _, report = load_pairs(jsonl(tmp_path, good, other, {**good, "rejected": "no turns"}))

    assert ["different prompts" in report.dropped[0].reason, '"\\n\\nAssistant:"' in report.dropped[1].reason] == [
        True
    ] * 2


def test_extra_columns_that_nest_deep_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"prompt": "a", "x": ' + "[" * 400 + "]" * 400 + '}\n{"prompt": "b"}\n', "utf-8")

    records, report = load_prompts(path)

    assert [record.prompt for record in records] == ["b"]
    assert "64 levels" in report.dropped[0].reason


def test_numbers_that_json_lacks_are_null(tmp_path: Path) -> None:
    path = tmp_path / "d.parquet"
    pq.write_table(pa.table({"prompt": ["a", "b"], "x": [1.0, float("nan")]}), path)

    records, report = load_prompts(path)

    assert [record.extra for record in records] == [{"x": 1.0}, {"x": None}]
    assert report.warnings == ("NaN or Infinity in the column 'x' is read as null",)


@pytest.mark.parametrize(
    ("load", "needed"),
    [(load_sft, "prompt and completion"), (load_pairs, "chosen and rejected"), (load_prompts, "prompt;")],
)
def test_wrong_columns_name_what_is_there_and_what_is_needed(load: Any, needed: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData) as caught:
        load(jsonl(tmp_path, {"question": "q", "reply": "r"}))

    assert "question, reply" in caught.value.message
    assert needed in caught.value.message


def test_a_mapping_to_an_absent_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="prompt: frage"):
        load_prompts(jsonl(tmp_path, {"question": "q"}), columns={"prompt": "frage"})


def test_columns_can_be_mapped(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"q": "a", "good": "b", "bad": "c"})

    records, _ = load_pairs(path, columns={"prompt": "q", "chosen": "good", "rejected": "bad"})

    assert records == [PairRecord("a", "b", "c", None, 1)]


def test_a_file_without_a_useful_row_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"None of the 2 rows .*\n  line 1: prompt is empty"):
        load_prompts(jsonl(tmp_path, {"prompt": ""}, {"prompt": 3}))
    (tmp_path / "blank.jsonl").write_text("\n\n", "utf-8")
    with pytest.raises(InvalidData, match="no rows"):
        load_prompts(tmp_path / "blank.jsonl")


def test_duplicates_are_counted(tmp_path: Path) -> None:
    _, report = load_pairs(jsonl(tmp_path, GOOD, GOOD, {**GOOD, "chosen": "other"}, GOOD))

    assert (report.kept, report.duplicates) == (4, 2)


def test_a_file_is_in_memory_once(tmp_path: Path) -> None:
    path = jsonl(tmp_path, *({"prompt": f"{number} {'p' * 400}", "completion": "c" * 600} for number in range(800)))
    tracemalloc.start()
    records, _ = load_sft(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert len(records) == 800
    assert peak < 1.6 * path.stat().st_size
