"""YAML documents: scalars, positions in errors, hostile input; overrides."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from quatrain.errors import InvalidSpec
from quatrain.jobspec import apply_overrides, load_yaml

BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{name}: &{name} [{', '.join([f'*{before}'] * 10)}]\n" for before, name in zip("abcdef", "bcdefg", strict=True)
)
CHAIN = "k0: &k0 [1]\n" + "".join(f"k{i}: &k{i} [*k{i - 1}]\n" for i in range(1, 3000))


def test_scalars_follow_yaml_1_2() -> None:
    text = "a: 1e-5\nb: 1.0e-3\nc: 010\nd: no\ne: 1:30\nf: 2026-01-02\ng:\nh: true\ni: -3\nj: .5\nk: '1'\nl: 1E3"

    document = load_yaml(text)

    assert document == {
        "a": 1e-5,
        "b": 1e-3,
        "c": 10,
        "d": "no",
        "e": "1:30",
        "f": "2026-01-02",
        "g": None,
        "h": True,
        "i": -3,
        "j": 0.5,
        "k": "1",
        "l": 1000.0,
    }


def test_json_is_read(tmp_path: Path) -> None:
    path = tmp_path / "spec.json"
    path.write_bytes(b'\xef\xbb\xbf{"name": "x",\n "ppo": {"steps": 3, "lr": 1e-5}}')

    assert load_yaml(path) == {"name": "x", "ppo": {"steps": 3, "lr": 1e-5}}


@pytest.mark.parametrize(
    ("text", "position", "problem"),
    [
        ("a: 1\nb: 2\na: 3", "3:1", "duplicate key 'a', first given in line 1"),
        ("a: {b: 1, b: 2}", "1:11", "duplicate key 'b'"),
        ("a: [1,\nb: 2", "2:5", "expected"),
        ("a:\n\t- b", "2:1", "not tabs"),
        ("a: 'x", "1:", "end of stream"),
        ("a: *b", "1:4", "undefined alias"),
        ("1: 2", "1:1", "keys must be strings"),
        ("? [a]\n: b", "1:3", "keys must be strings"),
        ("a: !!python/object/apply:os.system [x]", "1:4", "constructor"),
        ("a: 1\n---\nb: 2", "2:1", "document"),
        ("a: \x01", "1", "U+0001"),
        ("[" * 100_000, "1:", "32 levels"),
        ("a: &a [*a]", "1:", "inside its own anchor"),
        (BOMB, "", "values with aliases written out"),
        (CHAIN, "", "32 levels with aliases"),
        ("a: " + "9" * 10_000, "1:4", "30 digits"),
    ],
)
def test_errors_have_file_line_and_column(text: str, position: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(text, encoding="utf-8")

    with pytest.raises(InvalidSpec) as caught:
        load_yaml(path)

    assert f"spec.yaml:{position}" in caught.value.message
    assert problem in caught.value.message


@pytest.mark.parametrize(
    ("data", "match"),
    [
        (b"", "empty"),
        (b"# nothing", "empty"),
        (b"- a", "mapping"),
        (b"a: 1\nb: \xff", r"spec\.yaml:2: byte 0xff"),
        (b"a: " + b"x" * (1 << 20), "bytes"),
    ],
)
def test_files_that_are_no_spec(data: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_bytes(data)

    with pytest.raises(InvalidSpec, match=match):
        load_yaml(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match=r"none\.yaml cannot be read: No such file"):
        load_yaml(tmp_path / "none.yaml")


@given(st.text(max_size=60))
@settings(max_examples=150, deadline=None)
def test_any_text_is_a_mapping_or_invalid(text: str) -> None:
    try:
        document = load_yaml(text)
    except InvalidSpec:
        return
    assert isinstance(document, dict)


def test_overrides_set_fields_and_leave_the_document_alone() -> None:
    document = {"ppo": {"prompts": "p.jsonl"}, "reward": {"functions": [{"path": "a:b"}]}}

    changed = apply_overrides(
        document, ["ppo.kl.coef=1e-1", "ppo.prompts.format=json", "reward.functions.0.weight=2", "sft=null", "name=a=b"]
    )

    assert changed == {
        "ppo": {"prompts": {"uri": "p.jsonl", "format": "json"}, "kl": {"coef": 0.1}},
        "reward": {"functions": [{"path": "a:b", "weight": 2}]},
        "sft": None,
        "name": "a=b",
    }
    assert document["ppo"] == {"prompts": "p.jsonl"}


@pytest.mark.parametrize(
    ("override", "match"),
    [
        ("ppo.steps", r"dotted\.path=value"),
        ("=3", r"dotted\.path=value"),
        ("ppo..steps=3", r"dotted\.path=value"),
        ("name.x=3", "no fields"),
        ("list.1=3", "position in a list of 1"),
        ("list.x.y=3", "position"),
        ("name=[", "value:1:2"),
    ],
)
def test_wrong_overrides_are_refused(override: str, match: str) -> None:
    with pytest.raises(InvalidSpec, match=match):
        apply_overrides({"name": "x", "list": [{}]}, [override])
