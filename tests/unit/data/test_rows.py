"""Rows of files in every format, with line numbers, good and bad."""

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.data.rows import read_rows

from quatrain.data import Drop
from quatrain.errors import InvalidData

ROWS = [{"prompt": "naïve\n\u2028 日本", "n": "1"}, {"prompt": 'a "quoted", comma', "n": "2"}]


def write_parquet(path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), path)


WRITERS: dict[str, Callable[[Path], object]] = {
    "d.jsonl": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8"),
    "d.ndjson": lambda path: path.write_text("\n".join(json.dumps(row, ensure_ascii=False) for row in ROWS), "utf-8"),
    "d.json": lambda path: path.write_text(json.dumps(ROWS, indent=1), "utf-8"),
    "lines.json": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8-sig"),
    "d.csv": lambda path: path.write_text(
        'prompt,n\r\n"naïve\n\u2028 日本",1\r\n"a ""quoted"", comma",2\r\n', "utf-8-sig"
    ),
    "d.parquet": write_parquet,
    "lines": lambda path: path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), "utf-8"),
    "list": lambda path: path.write_text(json.dumps(ROWS), "utf-8"),
    "parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    WRITERS[name](path)

    rows = [row for _, row in read_rows(path)]

    assert rows == ROWS


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    jsonl, array, table = tmp_path / "a.jsonl", tmp_path / "a.json", tmp_path / "a.csv"
    jsonl.write_text('{"a": 1}\n\n  \n{"a": 2}', "utf-8")
    array.write_text('[\n {"a": 1},\n\n {"a":\n 2}, {"a": 3}]\n', "utf-8")
    table.write_text('a\n"x\ny"\nz\n', "utf-8")

    assert [line for line, _ in read_rows(jsonl)] == [1, 4]
    assert [line for line, _ in read_rows(array)] == [2, 4, 5]
    assert [line for line, _ in read_rows(table)] == [2, 4]


def test_bad_lines_are_dropped_with_the_reason(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    lines = [
        b'{"a": 1}',
        b"{",
        b'{"a": "\xff"}',
        b"[1]",
        b'{"a": NaN}',
        b"[" * 100_000,
        b"9" * 9999,
        b"null",
        b'{"a": 2}',
    ]
    path.write_bytes(b"\n".join(lines))
    dropped: list[Drop] = []

    rows = list(read_rows(path, dropped=dropped))

    assert rows == [(1, {"a": 1}), (5, {"a": None}), (9, {"a": 2})]
    assert [drop.line for drop in dropped] == [2, 3, 4, 6, 7, 8]
    reasons = [drop.reason for drop in dropped]
    assert "not valid JSON" in reasons[0]
    assert reasons[1] == "byte 0xff at position 8 of the line is not UTF-8"
    assert reasons[2] == "a JSON object is needed, not a list"


def test_without_a_list_for_drops_the_first_bad_line_raises(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"a": 1}\n{\n', "utf-8")

    with pytest.raises(InvalidData, match=r"d\.jsonl:2: not valid JSON"):
        list(read_rows(path))


@pytest.mark.parametrize(
    ("name", "content", "match"),
    [
        ("d.json", b'[{"a": 1} {"a": 2}]', r"d\.json:1: .*comma"),
        ("d.json", b'[{"a": 1},\n{"a": ]', r"d\.json:2: not valid JSON"),
        ("d.json", b'[{"a": 1}] x', "after the closing"),
        ("d.json", b'[{"a": 1},\n"\xff"]', r"d\.json:2: byte 0xff"),
        ("d.json", b'[{"a": 1}', "comma or"),
        ("d.csv", b"a,b\n1,\xff\n", r"d\.csv:2: byte 0xff"),
        ("d.csv", b"a,a\n1,2\n", "name the columns"),
        ("d.csv", b'a,b\n1,"x\n', r"d\.csv:2: not valid CSV"),
        ("d.parquet", b"PAR1 not really", "not a readable Parquet file"),
        ("d.jsonl", b"", "is empty"),
        ("data", b"a,b\n1,2\n", "format of .* is not known"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    with pytest.raises(InvalidData, match=match):
        list(read_rows(path, dropped=[]))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"none\.jsonl does not exist"):
        list(read_rows(tmp_path / "none.jsonl"))


def test_rows_of_a_csv_with_wrong_counts_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "d.csv"
    path.write_text("a,b\n1,2\n3\n\n4,5\n", "utf-8")
    dropped: list[Drop] = []

    rows = list(read_rows(path, dropped=dropped))

    assert [row["a"] for _, row in rows] == ["1", "4"]
    assert dropped == [Drop(3, "1 fields, the header names 2")]


def test_columns_are_renamed(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text('{"question": "q", "prompt": "old", "x": 1}\n', "utf-8")

    rows = list(read_rows(path, columns={"prompt": "question"}))

    assert rows == [(1, {"x": 1, "prompt": "q"})]


@given(st.binary(max_size=80))
@settings(max_examples=150, deadline=None)
def test_any_bytes_give_rows_or_invalid_data(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    folder = tmp_path_factory.mktemp("bytes", numbered=True)
    for extension in ("jsonl", "json", "csv", "parquet"):
        path = folder / f"d.{extension}"
        path.write_bytes(content)
        try:
            rows = list(read_rows(path, dropped=[]))
        except InvalidData:
            continue
        assert all(isinstance(row, dict) and line >= 1 for line, row in rows)
