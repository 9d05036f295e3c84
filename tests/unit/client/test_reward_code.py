"""Reward code that a spec names by path: what is uploaded, and what is refused before anything is."""

from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi
from tests.unit.client.folders import SPEC, write_spec

from quatrain.client import Client
from quatrain.client.reward_code import code_faults, code_path, packed, sent_path
from quatrain.code_folder import MAX_BYTES, MAX_FILES, unpack
from quatrain.digests import sha256_hex
from quatrain.errors import InvalidData


def write_folder(folder: Path) -> Path:
    (folder / "more").mkdir(parents=True)
    (folder / "__pycache__").mkdir()
    (folder / ".git").mkdir()
    (folder / "polite.py").write_text("from words import listed\ndef polite(completions, **kwargs): return []\n")
    (folder / "words.py").write_text("listed = ['please']\n")
    (folder / "more" / "words.json").write_text("[]")
    for left_out in ("__pycache__/polite.pyc", ".git/config.py", ".env.py", "model.safetensors", "notes.ipynb"):
        (folder / left_out).write_text("x")
    (folder / "link.py").symlink_to("/etc/passwd")
    return folder


def test_paths_of_files_folders_and_modules_are_told_apart() -> None:
    assert code_path("rewards.py:f") == "rewards.py"
    assert code_path("rewards/:module:f") == "rewards/"
    assert code_path("../a b/:pkg.module:f") == "../a b/"
    assert code_path("package.module:f") == ""
    assert sent_path("../a/b.py:f", Path("/x/a/b.py")) == "b.py:f"
    assert sent_path("../rewards/:pkg.module:f", Path("/x/rewards")) == "rewards/:pkg.module:f"


def test_a_folder_is_packed_by_content_and_without_what_is_no_code(tmp_path: Path) -> None:
    one, other = packed(write_folder(tmp_path / "one")), packed(write_folder(tmp_path / "other"))
    (tmp_path / "other" / "words.py").write_text("listed = ['thanks']\n")

    assert sorted(unpack(one)) == ["more/words.json", "polite.py", "words.py"]
    assert one == other
    assert packed(tmp_path / "other") != one


def test_submit_uploads_the_folder_and_sends_its_digest(tmp_path: Path) -> None:
    text = SPEC.replace("rewards.py:shortness", "code/:polite:polite")
    spec = write_spec(tmp_path, text)
    folder = write_folder(tmp_path / "code")
    with FakeApi() as api, Client(api.target) as client:
        job = client.submit(spec)
        [function] = api.jobs[job.id].spec.reward.functions
        files = dict(api.files)

    digest = sha256_hex(packed(folder))
    assert (function.path, function.code_digest) == ("code/:polite:polite", digest)
    assert sorted(unpack(files[digest])) == ["more/words.json", "polite.py", "words.py"]


def faults(path: str, folder: Path) -> list[str]:
    return list(code_faults(path, folder / code_path(path)))


@pytest.mark.parametrize(
    ("code", "module"),
    [
        ("from words import listed", "words"),
        ("import words", "words"),
        ("import words.listed", "words"),
        ("def f(**k):\n    from words import listed", "words"),
        ("import more", "more"),
        ("from .words import listed", "words"),
        ("from . import words", "."),
    ],
)
def test_a_lone_file_that_imports_a_neighbour_is_told_to_come_with_its_folder(
    tmp_path: Path, code: str, module: str
) -> None:
    folder = write_folder(tmp_path / "code")
    (folder / "lone.py").write_text(code)

    [fault] = faults("lone.py:f", folder)

    assert f"imports '{module}" in fault
    assert "one file is uploaded alone; give the folder: `path: " in fault
    way = f"{tmp_path}/:code.lone:f`" if "." in code.partition("import")[0] else f"{folder}/:lone:f`"
    assert fault.endswith(way)


@pytest.mark.parametrize(
    "code",
    [
        "import json, numpy",
        "try:\n    import words\nexcept ImportError:\n    pass",
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import words",
        "this is no python",
        "import lone",
        "x = 'import words'",
    ],
)
def test_other_files_come_alone(tmp_path: Path, code: str) -> None:
    folder = write_folder(tmp_path / "code")
    (folder / "lone.py").write_text(code)

    assert faults("lone.py:f", folder) == []


def test_a_folder_that_cannot_work_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "code")
    (tmp_path / "empty").mkdir()

    assert faults("code/:nothing:f", tmp_path) == [f"{folder} has no module 'nothing'; it has polite, words"]
    assert faults("nowhere/:m:f", tmp_path)[0].startswith(f"{tmp_path}/nowhere is not a folder")
    assert "has no .py file" in faults("empty/:m:f", tmp_path)[0]
    assert faults("code/:polite:polite", tmp_path) == []


def test_a_folder_beyond_the_bounds_is_refused(tmp_path: Path) -> None:
    many, large = tmp_path / "many", tmp_path / "large"
    many.mkdir()
    large.mkdir()
    for number in range(MAX_FILES + 1):
        (many / f"m{number}.py").write_text("")
    (large / "words.txt").write_bytes(bytes(MAX_BYTES + 1))

    for folder in (many, large):
        with pytest.raises(InvalidData, match=r"more than 200 files or 8 MiB .* move the reward's files"):
            packed(folder)
