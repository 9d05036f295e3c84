"""Files as people have them: packed, misnamed, by columns, in folders with splits; values that JSON lacks."""

import bz2
import datetime
import decimal
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from quatrain.data import DataFiles, Drop, load_prompts, read_files
from quatrain.data.files import find_files
from quatrain.errors import InvalidData

ROWS = [{"prompt": "Where is it?", "n": 1}, {"prompt": "And now?", "n": 2}]
LINES = "".join(json.dumps(row) + "\n" for row in ROWS).encode()


def zstd(data: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(data)
    return bytes(sink.getvalue())


def rows_of(path: Path, dropped: list[Drop] | None = None) -> list[dict[str, Any]]:
    return [dict(row) for _, row in read_files(DataFiles.of(path), {}, dropped)]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("a.jsonl.gz", gzip.compress),
        ("a.jsonl.zst", zstd),
        ("a.jsonl.bz2", bz2.compress),
        ("a.jsonl.xz", lzma.compress),
        ("a.jsonl", gzip.compress),
        ("data", zstd),
    ],
)
def test_packed_files_are_read_whatever_their_name(name: str, pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(pack(LINES))

    assert rows_of(tmp_path / name) == ROWS


@pytest.mark.parametrize("pack", [gzip.compress, zstd])
def test_a_packed_file_that_is_cut_is_said_to_be(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    rows = "".join(json.dumps({"prompt": str(n * 7919), "n": n}) + "\n" for n in range(5000)).encode()
    (tmp_path / "a.jsonl").write_bytes(pack(rows)[:-2000])

    with pytest.raises(InvalidData, match="cut short"):
        rows_of(tmp_path / "a.jsonl", [])


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lines.json", LINES),
        ("list.jsonl", json.dumps(ROWS).encode()),
        ("pretty.jsonl", "\n".join(json.dumps(row, indent=2) for row in ROWS).encode()),
        ("pretty.json", json.dumps(ROWS, indent=1).encode()),
        ("lines.csv", LINES),
    ],
)
def test_the_content_decides_before_the_name(name: str, content: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)

    assert rows_of(tmp_path / name) == ROWS


def test_a_bad_first_row_is_one_drop(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(b'{"prompt": "x",}\n' + LINES)
    (tmp_path / "b.jsonl").write_bytes(b'{"prompt": "x\n' + LINES)
    (tmp_path / "c.jsonl").write_bytes(b'{"prompt": "\xe9"}\n' + LINES)

    for name in "abc":
        dropped: list[Drop] = []
        assert rows_of(tmp_path / f"{name}.jsonl", dropped) == ROWS
        assert [drop.line for drop in dropped] == [1]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.json", {"prompt": {"0": "x", "1": "y"}, "n": {"0": 1, "1": 2}}, "by columns"),
        ("a.jsonl", {"prompt": ["x", "y"], "n": [1, 2]}, "by columns"),
        ("a.json", {"columns": ["prompt"], "index": [0], "data": [["x"]]}, "'split'"),
        ("a.json", {"data": ROWS}, "under 'data'"),
    ],
)
def test_whole_tables_in_one_object_are_said_in_one_sentence(
    name: str, content: object, words: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(json.dumps(content))

    with pytest.raises(InvalidData, match=words) as caught:
        load_prompts(tmp_path / name)
    assert caught.value.message.count("\n") == 0


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"PK\x03\x04rest", "zip archive"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        ("prompt\nx\n".encode("utf-16"), "UTF-16"),
        (b"prompt,n\nx,1\n", "name it .csv"),
    ],
)
def test_what_is_no_data_is_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(content)

    with pytest.raises(InvalidData, match=words):
        load_prompts(tmp_path / "a.jsonl")


@pytest.mark.parametrize(
    ("text", "note"),
    [
        ("prompt;n\nWhere is it?;1\n", "the separator is a semicolon"),
        ("prompt\tn\nWhere is it?\t1\n", "the separator is a tab"),
        (",prompt,n\n0,Where is it?,1\n", "the first column has no name"),
        (f"prompt,n,long\nWhere is it?,1,{'x' * 300_000}\n", ""),
    ],
)
def test_csv_as_tools_write_it(text: str, note: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(text)

    records, report = load_prompts(tmp_path / "a.csv")

    assert records[0].prompt == "Where is it?"
    assert records[0].extra["n"] == "1"
    assert any(note in warning for warning in report.warnings) == bool(note)


def test_csv_in_another_encoding_gets_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes("prompt,city\nx,München\n".encode("cp1252"))

    with pytest.raises(InvalidData, match=r"a\.csv:2: byte 0xfc .*`iconv -f CP1252 -t UTF-8`"):
        load_prompts(tmp_path / "a.csv")


def odd_table() -> pa.Table:
    moment = datetime.datetime(2025, 1, 1, 12)
    return pa.table(
        {
            "prompt": ["x", "y"],
            "score": [1.5, float("nan")],
            "at": pa.array([moment, None], pa.timestamp("ns")),
            "days": pa.array([moment.date(), None]),
            "times": pa.array([[moment], []], pa.list_(pa.timestamp("ns"))),
            "exact": pa.array([1, None], pa.time64("ns")),
            "long": pa.array([1, None], pa.duration("ns")),
            "price": pa.array([decimal.Decimal("1.25"), None]),
            "raw": [b"\xff", None],
            "deep": [{"raw": b"\xff", "x": float("inf")}, None],
        }
    )


@pytest.mark.parametrize("kind", ["parquet", "arrow", "stream"])
def test_values_that_json_lacks_drop_no_row(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.data"
    table = odd_table()
    if kind == "parquet":
        pq.write_table(table, path)
    elif kind == "arrow":
        with pa.ipc.new_file(path, table.schema) as file:
            file.write_table(table)
    else:
        with pa.ipc.new_stream(path, table.schema) as file:
            file.write_table(table)

    records, report = load_prompts(path)

    extra = records[0].extra
    assert (report.kept, report.dropped) == (2, ())
    assert (extra["score"], extra["price"], extra["deep"]) == (1.5, 1.25, {"raw": None, "x": None})
    assert str(extra["at"]).startswith("2025-01-01 12:00:00")
    assert extra["days"] == "2025-01-01"
    assert "raw" not in extra
    assert records[1].extra["score"] is None
    notes = " | ".join(report.warnings)
    for column in ("score", "at", "days", "times", "exact", "raw", "deep"):
        assert f"'{column}'" in notes


def test_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_arrays([pa.array(["x"]), pa.array(["y"])], names=["prompt", "prompt"]), tmp_path / "a")

    with pytest.raises(InvalidData, match="more than one column 'prompt'"):
        load_prompts(tmp_path / "a")


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"prompt": name}) + "\n")


def found(text: Path | str, split: str | None = None) -> list[str]:
    return [path.name for path in find_files(str(text), split)]


def test_a_folder_is_its_data_files_and_a_split_some_of_them(tmp_path: Path) -> None:
    write(
        tmp_path, "data/train-00000-of-00002.jsonl", "data/train-00001-of-00002.jsonl", "data/test-00000-of-00001.jsonl"
    )
    write(tmp_path, "README.txt", ".hidden.jsonl")

    assert found(tmp_path, "train") == ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"]
    assert found(tmp_path, "test") == ["test-00000-of-00001.jsonl"]
    with pytest.raises(InvalidData, match="has the splits test, train: say which one"):
        found(tmp_path)
    with pytest.raises(InvalidData, match="no split 'validation'"):
        found(tmp_path, "validation")


def test_folders_are_splits_and_words_mean_the_same(tmp_path: Path) -> None:
    write(tmp_path, "train/a.jsonl", "dev/a.jsonl")

    assert found(tmp_path, "validation") == ["a.jsonl"]
    assert find_files(str(tmp_path), "val")[0].parent.name == "dev"


def test_a_word_within_a_name_is_no_split_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "sets", "test-driven.jsonl", "dev-chat.jsonl", "other.jsonl")
    write(tmp_path / "pairs", "prefs_train.jsonl", "prefs_test.jsonl")

    assert found(tmp_path / "sets") == ["dev-chat.jsonl", "other.jsonl", "test-driven.jsonl"]
    assert found(tmp_path / "pairs", "train") == ["prefs_train.jsonl"]


def test_a_pattern_takes_no_split_from_the_folders_above_it(tmp_path: Path) -> None:
    write(tmp_path / "test" / "prefs", "one.jsonl", "two.jsonl")

    assert found(tmp_path / "test" / "prefs" / "*.jsonl") == ["one.jsonl", "two.jsonl"]
    with pytest.raises(InvalidData, match="No file matches"):
        found(tmp_path / "*.csv")


def test_a_split_of_one_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "train.jsonl")

    with pytest.raises(InvalidData, match="one file without splits"):
        found(tmp_path / "train.jsonl", "test")


def test_a_folder_that_datasets_saved_is_the_files_of_its_state(tmp_path: Path) -> None:
    table = pa.table({"prompt": ["x"]})
    for name in ("data-00000-of-00001.arrow", "cache-1234.arrow"):
        with pa.ipc.new_stream(tmp_path / name, table.schema) as stream:
            stream.write_table(table)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "data-00000-of-00001.arrow"}]}))
    (tmp_path / "dataset_info.json").write_text("{}")

    assert rows_of(tmp_path) == [{"prompt": "x"}]


def test_rows_of_several_files_are_named_by_file_and_line(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(LINES)
    (tmp_path / "b.jsonl").write_bytes(LINES + b"{oops\n")
    files = DataFiles.of(tmp_path)
    dropped: list[Drop] = []

    numbers = [number for number, _ in read_files(files, {}, dropped)]

    assert numbers == [1, 2, 3, 4]
    assert files.place(dropped[0].line) == f"{tmp_path / 'b.jsonl'}:3"
    with pytest.raises(InvalidData, match=r"b\.jsonl:3: not valid JSON"):
        list(read_files(DataFiles.of(tmp_path), {}, None))


def test_a_small_file_that_unpacks_to_far_more_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("quatrain.data.files.opening.MIN_UNPACKED", 2**20)
    (tmp_path / "a.jsonl").write_bytes(gzip.compress(b'{"prompt": "' + b"x" * 2**24 + b'"}\n'))

    with pytest.raises(InvalidData, match="far more than such data has"):
        load_prompts(tmp_path / "a.jsonl")
