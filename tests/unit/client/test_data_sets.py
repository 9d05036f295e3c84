"""Sets of several files in a spec: folders, patterns, lists and splits become files with the names that people know."""

import json
from pathlib import Path
from typing import Any

import pytest

from quatrain.client.submission import local_files, read_draft
from quatrain.errors import InvalidData


def write(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps({"prompt": name}) + "\n")


def prompts_of(folder: Path, prompts: Any) -> tuple[list[str], list[Path]]:
    """The names of the prompt set in a spec of this folder, and the files that would be sent."""
    functions = [{"path": "builtins:len"}]
    document = {
        "name": "x",
        "model": {"uri": "models://base"},
        "reward": {"functions": functions},
        "ppo": {"prompts": prompts, "steps": 1},
    }
    spec = folder / "spec.yaml"
    spec.write_text(json.dumps(document))
    draft = read_draft(spec, [])
    ppo: Any = draft.document["ppo"]
    return ppo["prompts"]["names"], [each.path for each in local_files(draft) if each.kind == "data"]


@pytest.mark.parametrize(
    ("prompts", "names"),
    [
        ("one.jsonl", ["one.jsonl"]),
        (["one.jsonl", "sets/b.jsonl"], ["one.jsonl", "sets/b.jsonl"]),
        ("sets", ["sets/a.jsonl", "sets/b.jsonl"]),
        ("sets/*.jsonl", ["sets/a.jsonl", "sets/b.jsonl"]),
        ("sets/a*.jsonl", ["sets/a.jsonl"]),
        ({"uri": "split", "split": "test"}, ["split/test-00000-of-00001.jsonl"]),
    ],
)
def test_a_set_is_its_files(prompts: Any, names: list[str], tmp_path: Path) -> None:
    write(tmp_path, "one.jsonl", "sets/a.jsonl", "sets/b.jsonl")
    write(tmp_path / "split", "train-00000-of-00001.jsonl", "test-00000-of-00001.jsonl")

    found, files = prompts_of(tmp_path, prompts)

    assert found == names
    assert files == [tmp_path / name for name in names]


def test_a_folder_of_splits_and_an_empty_pattern_are_refused(tmp_path: Path) -> None:
    write(tmp_path / "split", "train.jsonl", "test.jsonl")

    with pytest.raises(InvalidData, match="has the splits test, train"):
        prompts_of(tmp_path, "split")
    with pytest.raises(InvalidData, match=r"No file matches .*\*\.csv"):
        prompts_of(tmp_path, "split/*.csv")
