"""Which files of a repository a name means, and how its URIs are read."""

from typing import Literal

import pytest

from quatrain.errors import InvalidData, InvalidInput, NotFound
from quatrain.orchestrator.submission.hub.address import read_address
from quatrain.orchestrator.submission.hub.files import choose_data, choose_model

SHARDS = ["data/train-00000-of-00002.parquet", "data/train-00001-of-00002.parquet"]
TEST = "data/test-00000-of-00001.parquet"
COMMIT = "0123456789abcdef0123456789abcdef01234567"

MEANT: dict[str, tuple[list[str], str, str, list[str]]] = {
    "shards of a split": ([*SHARDS, TEST], "train", "", SHARDS),
    "split by its field": ([*SHARDS, TEST], "", "train", SHARDS),
    "the one file": (["rows.jsonl", "README.md", "dataset_infos.json"], "", "", ["rows.jsonl"]),
    "a path": (["a/train.csv", "b/train.csv"], "b/train.csv", "", ["b/train.csv"]),
    "a pattern": ([*SHARDS, TEST], "data/train-*", "", SHARDS),
    "a folder": (["en/train.jsonl", "de/train.jsonl"], "en", "", ["en/train.jsonl"]),
    "a split in a folder": (["en/train.jsonl", "en/test.jsonl", "de/train.jsonl"], "en/train", "", ["en/train.jsonl"]),
    "the default folder": (["default/train/0.parquet", "x/train/0.parquet"], "train", "", ["default/train/0.parquet"]),
    "a folder as split": (
        ["train/0.parquet", "train/1.parquet", "test/0.parquet"],
        "train",
        "",
        ["train/0.parquet", "train/1.parquet"],
    ),
    "compressed": (["train.jsonl.gz", "test.jsonl.gz"], "train", "", ["train.jsonl.gz"]),
    "longer names are other sets": (["train.jsonl", "train_prefs.jsonl"], "train", "", ["train.jsonl"]),
    "a longer name": (
        ["data/train_sft-00000-of-00001.parquet", "data/train_prefs-00000-of-00001.parquet"],
        "train_prefs",
        "",
        ["data/train_prefs-00000-of-00001.parquet"],
    ),
}


@pytest.mark.parametrize("case", MEANT)
def test_a_name_means_the_files_of_one_set(case: str) -> None:
    names, inside, split, expected = MEANT[case]
    assert choose_data("hf://datasets/o/n", names, inside, split) == expected


@pytest.mark.parametrize(
    ("names", "inside"),
    [
        (["train.jsonl", "test.jsonl"], ""),
        (["train.jsonl", "train.csv"], "train"),
        (["en/train.jsonl", "de/train.jsonl"], "train"),
    ],
)
def test_several_sets_are_refused_with_their_files(names: list[str], inside: str) -> None:
    with pytest.raises(InvalidData, match=r"may mean several sets: .*train"):
        choose_data("hf://datasets/o/n", names, inside, "")


def test_no_such_split_names_what_there_is() -> None:
    with pytest.raises(NotFound, match=r"no file of the repository is 'validation'; it has data/test-.*train"):
        choose_data("hf://datasets/o/n", [*SHARDS, TEST], "validation", "")


def test_of_a_model_only_what_is_loaded_is_taken() -> None:
    shards = [f"model-0000{n}-of-00002.safetensors" for n in (1, 2)]
    texts = ["additional_chat_templates/tool.jinja", "config.json", "merges.txt", "tokenizer.json"]
    unwanted = ["consolidated.safetensors", "original/params.json", "x.py", "pytorch_model.bin", ".gitattributes"]
    assert choose_model("u", [*shards, *texts, *unwanted]) == [*texts, *shards]
    assert choose_model("u", [*shards, "model.safetensors"]) == ["model.safetensors"]
    with pytest.raises(InvalidData, match="pickle files"):
        choose_model("u", unwanted[2:])


@pytest.mark.parametrize(
    ("uri", "kind", "revision", "inside"),
    [
        ("hf://org/name", "model", "main", ""),
        (f"hf://org/name@{COMMIT}", "model", COMMIT, ""),
        ("hf://org/name@refs/pr/3", "model", "refs/pr/3", ""),
        ("hf://org/name@feature%2Fx", "model", "feature/x", ""),
        ("hf://datasets/org/name@v1/data/train.jsonl", "dataset", "v1", "data/train.jsonl"),
        ("hf://datasets/org/name@refs/convert/parquet/default", "dataset", "refs/convert/parquet", "default"),
    ],
)
def test_a_uri_is_read_and_written_the_same(
    uri: str, kind: Literal["model", "dataset"], revision: str, inside: str
) -> None:
    address = read_address(uri, kind)
    assert (address.repository, address.revision, address.inside) == ("org/name", revision, inside)
    assert read_address(address.uri, kind) == address


@pytest.mark.parametrize(
    "uri", [*("hf://", "hf://x", "hf://o/n/file", "hf://o/n@"), *("hf://o/../n", "hf://o/n@a/b", "hf://-o/n")]
)
def test_what_names_no_model_is_refused(uri: str) -> None:
    with pytest.raises(InvalidInput, match=r"give hf://ORG/NAME|leave out"):
        read_address(uri, "model")
