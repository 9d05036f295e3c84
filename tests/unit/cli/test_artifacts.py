import json
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.client.fake_api import FakeApi
from tests.unit.client.folders import write_model

from quatrain.digests import sha256_hex

Cli = Callable[..., tuple[int, str, str]]


def test_checkpoints_are_listed(api: FakeApi, cli: Cli) -> None:
    job = api.add_job("a")
    job.append("checkpoint", stage="ppo", step=20, key="k", sha256="s", size=3)

    assert cli("checkpoint", "list", "a", "-o", "name")[1] == "ppo@20\n"
    assert cli("checkpoint", "list", "a")[1].splitlines()[1].split() == ["ppo", "20", "1"]
    assert json.loads(cli("checkpoint", "list", "a", "-o", "json")[1])[0]["sha256"] == "s"


def test_a_model_is_downloaded(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    api.add_job("a")
    api.folders = {"a/model": {"config.json": b"{}"}, "a/checkpoint": {"x": b"1"}, "a/reward_model": {"y": b""}}

    code, out, err = cli("checkpoint", "download", "a", "--to", str(tmp_path / "m"))

    assert (code, out) == (0, f"{tmp_path / 'm'}\n")
    assert "AutoModelForCausalLM" in err
    assert (tmp_path / "m" / "config.json").read_bytes() == b"{}"
    out = cli("checkpoint", "download", "a", "--step", "3", "--to", str(tmp_path / "c"), "-o", "json")[1]
    assert json.loads(out) == {"folder": str(tmp_path / "c"), "files": ["x"]}
    err = cli("checkpoint", "download", "a", "--what", "reward_model", "--to", str(tmp_path / "r"))[2]
    assert "AutoModelForSequenceClassification" in err


def test_a_model_is_imported_and_listed(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    folder = str(write_model(tmp_path / "m"))

    uri = cli("model", "import", folder, "-o", "name")[1].strip()
    table = cli("model", "import", folder, "--name", "tiny")[1]

    assert uri in api.folders
    assert "models://tiny@1" in table
    assert cli("model", "list", "-o", "name")[1] == "models://tiny@1\n"
    assert cli("model", "list")[1].splitlines()[1].split() == ["tiny", "1", uri]


def test_a_model_in_a_bucket_is_read_by_the_server(api: FakeApi, cli: Cli) -> None:
    code, table, _ = cli("model", "import", "s3://models/base", "--name", "tiny")

    assert code == 0
    assert "models://tiny@1" in table
    assert list(api.folders.values()) == [{"uri": b"s3://models/base"}]


def test_a_folder_that_is_no_model_is_exit_code_3(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    code, _, err = cli("model", "import", str(tmp_path))

    assert code == 3
    assert "config.json" in err


def test_data_is_uploaded(api: FakeApi, cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"prompt": "a"}\n')

    assert cli("data", "upload", str(path))[:2] == (0, f"sha256:{sha256_hex(path.read_bytes())}\n")


@pytest.mark.parametrize(
    ("row", "kind"),
    [
        ({"prompt": "a", "completion": "b"}, "sft"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preferences"),
        ({"prompt": "a", "topic": "x"}, "prompts"),
    ],
)
def test_data_validate_tells_the_kind_by_its_columns(cli: Cli, tmp_path: Path, row: dict[str, str], kind: str) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(json.dumps(row) + "\n{not json}\n" + json.dumps(row) + "\n")

    code, out, _ = cli("data", "validate", str(path), "-o", "json")

    report = json.loads(out)
    assert code == 0
    assert (report["rows"], report["kept"], report["duplicates"]) == (3, 2, 1)
    assert [drop["line"] for drop in report["dropped"]] == [2]
    assert json.loads(cli("data", "validate", str(path), "-o", "json", "--as", kind)[1]) == report


def test_data_validate_takes_the_rule_of_a_label_and_names_of_sets(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    path.write_text(json.dumps({"history": "p", "human_ref_A": "x", "human_ref_B": "yy", "labels": 1}) + "\n", "utf-8")
    mapped = ("history", "human_ref_A", "human_ref_B", "labels")
    columns = [
        part
        for name, own in zip(("prompt", "a", "b", "label"), mapped, strict=True)
        for part in ("--column", f"{name}={own}")
    ]

    for arguments in (["--format", "shp"], [*columns, "--label-rule", "a-if-true"]):
        code, out, _ = cli("data", "validate", str(path), "-o", "json", *arguments)
        assert (code, json.loads(out)["examples"][0]["chosen"]) == (0, "x")
    code, _, err = cli("data", "validate", str(path), "--label-rule", "guess")
    assert (code, "index-from-0" in err) == (3, True)


def test_data_validate_for_people(cli: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text('{"q": "How?", "completion": "So."}\n{"q": 7, "completion": "x"}\n')

    code, out, err = cli("data", "validate", str(path), "--column", "prompt=q")

    assert code == 0
    assert "kept        1" in out
    assert "  line 2: " in out
    assert "prompt      How?" in out
    assert "warning: 1 of 2 rows are dropped" in err


@pytest.mark.parametrize(
    ("content", "arguments"),
    [("", []), ('{"x": 1}\n', []), ('{"prompt": "a"}\n', ["--as", "sft"]), ('{"prompt": "a"}\n', ["--as", "poems"])],
)
def test_data_that_cannot_be_used_is_exit_code_3(cli: Cli, tmp_path: Path, content: str, arguments: list[str]) -> None:
    path = tmp_path / "x.jsonl"
    path.write_text(content)

    code, out, err = cli("data", "validate", str(path), *arguments)

    assert (code, out) == (3, "")
    assert err.startswith("error: ")
