"""Checks of a model folder: sound ones pass, everything else names file and fault."""

import json
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from tests.unit.text.folders import write_json

from quatrain.errors import InvalidData
from quatrain.text import check_model_folder

CONFIG = {
    "model_type": "qwen2",
    "architectures": ["Qwen2ForCausalLM"],
    "vocab_size": 7,
    "max_position_embeddings": 64,
}


def model_folder(folder: Path, **config: Any) -> Path:
    folder.mkdir(exist_ok=True)
    write_json(folder / "config.json", {**CONFIG, **config})
    tensors: dict[str, Any] = {
        "embed": np.ones((7, 4), np.float32),
        "head": np.ones((3,), np.float16),
        "none": np.ones((0, 2), np.int8),
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def shards(folder: Path) -> Path:
    model_folder(folder)
    (folder / "model.safetensors").unlink()
    save_file({"a": np.ones((2, 3), np.float32)}, folder / "model-1.safetensors")
    save_file({"b": np.ones((5,), np.float32)}, folder / "model-2.safetensors")
    weight_map = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    write_json(folder / "model.safetensors.index.json", {"metadata": {}, "weight_map": weight_map})
    return folder


def raw_file(path: Path, header: Any, data: bytes = b"") -> None:
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(content)) + content + data)


def test_facts_of_a_sound_folder(tmp_path: Path) -> None:
    facts = check_model_folder(model_folder(tmp_path))

    assert (facts.vocab_size, facts.max_positions, facts.model_type) == (7, 64, "qwen2")
    assert facts.architectures == ("Qwen2ForCausalLM",)
    assert facts.parameters == 31


def test_facts_of_shards_and_of_nested_config(tmp_path: Path) -> None:
    assert check_model_folder(shards(tmp_path / "a")).parameters == 11
    nested = {"vocab_size": None, "max_position_embeddings": None, "text_config": {"vocab_size": 9}}
    facts = check_model_folder(model_folder(tmp_path / "b", **nested))
    assert (facts.vocab_size, facts.max_positions) == (9, None)


def test_folders_that_transformers_writes_pass(tmp_path: Path) -> None:
    from transformers import Qwen2Config, Qwen2ForCausalLM

    shape: dict[str, Any] = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Qwen2ForCausalLM(Qwen2Config(vocab_size=11, num_key_value_heads=2, **shape))
    model.save_pretrained(tmp_path / "one")
    model.save_pretrained(tmp_path / "many", max_shard_size="1KB")

    one, many = check_model_folder(tmp_path / "one"), check_model_folder(tmp_path / "many")

    assert one == many
    assert one.vocab_size == 11
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1


def test_pickles_are_refused_by_name(tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(InvalidData, match=r"pickle files \(pytorch_model\.bin\)"):
        check_model_folder(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json"])
def test_remote_code_is_refused(name: str, tmp_path: Path) -> None:
    folder = model_folder(tmp_path)
    write_json(folder / name, {**CONFIG, "auto_map": {"AutoModelForCausalLM": "modeling.X"}})

    with pytest.raises(InvalidData, match=rf"{name} asks for remote code"):
        check_model_folder(folder)


@pytest.mark.parametrize(
    ("config", "match"),
    [
        ({"model_type": None}, "model_type"),
        ({"vocab_size": None}, "vocab_size"),
        ({"vocab_size": -1}, "vocab_size must be"),
        ({"max_position_embeddings": "x"}, "max_position_embeddings must be"),
    ],
)
def test_a_config_without_the_facts_is_refused(config: dict[str, Any], match: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=match):
        check_model_folder(model_folder(tmp_path, **config))


def test_absent_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="does not exist"):
        check_model_folder(tmp_path / "none")
    with pytest.raises(InvalidData, match=r"no config\.json"):
        check_model_folder(tmp_path)
    folder = model_folder(tmp_path)
    (folder / "model.safetensors").unlink()
    with pytest.raises(InvalidData, match="no weights"):
        check_model_folder(folder)
    (folder / "config.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidData, match=r"config\.json is not valid JSON"):
        check_model_folder(folder)


def test_broken_shards_are_named(tmp_path: Path) -> None:
    index = "model.safetensors.index.json"
    folder = shards(tmp_path)
    for weight_map, match in (
        ({"a": "model-3.safetensors"}, "names model-3.safetensors"),
        ({"c": "model-1.safetensors"}, "lacks the tensor 'c'"),
        ({"a": "../model-1.safetensors"}, "not the name of a safetensors file"),
        ({}, "no weight_map"),
    ):
        write_json(folder / index, {"weight_map": weight_map})
        with pytest.raises(InvalidData, match=match):
            check_model_folder(folder)


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "data", "match"),
    [
        (b"\xff\xfe", b"", "invalid UTF-8 in header"),
        (b"[" * 50_000, b"", "invalid type: sequence, expected struct"),
        (b'{"a": ' * 50_000, b"", "recursion limit exceeded"),
        (b'{"\\ud800": 3}', b"", "unexpected end of hex escape"),
        ([], b"", "invalid type: sequence, expected struct"),
        ({"a": 3}, b"", "invalid type: integer `3`, expected struct TensorInfo"),
        ({"a": {"dtype": "F32", "shape": [2]}}, b"12345678", "missing field `data_offsets`"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, b"", "invalid length 1, expected a tuple of size 2"),
        ({"a": {**ENTRY, "dtype": "Q9"}}, b"12345678", "unknown variant `Q9`"),
        ({"a": {**ENTRY, "shape": [-2]}}, b"12345678", "invalid value: integer `-2`"),
        ({"a": {**ENTRY, "shape": "x"}}, b"12345678", 'invalid type: string "x", expected a sequence'),
        ({"a": {**ENTRY, "shape": [3]}}, b"12345678", "invalid shape, data type, or offset"),
        ({"a": {**ENTRY, "shape": [2**62, 4]}}, b"12345678", "overflow computing buffer size"),
        ({"a": {**ENTRY, "shape": [2**64]}}, b"12345678", "expected usize"),
        ({"a": {**ENTRY, "data_offsets": [1, 9]}}, b"123456789", "invalid offset for tensor `a`"),
        ({"a": ENTRY, "b": ENTRY}, b"12345678", "invalid offset for tensor `[ab]`"),
        ({"a": ENTRY}, b"1234", "file not fully covered"),
        ({"a": ENTRY}, b"123456789", "file not fully covered"),
    ],
)
def test_a_corrupt_file_is_named_with_its_fault(header: Any, data: bytes, match: str, tmp_path: Path) -> None:
    raw_file(model_folder(tmp_path) / "model.safetensors", header, data)

    with pytest.raises(InvalidData, match=match) as caught:
        check_model_folder(tmp_path)

    assert "model.safetensors is not a sound safetensors file" in caught.value.message


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "header too small"),
        (b"1234", "header too small"),
        (struct.pack("<Q", 100) + b"{}", "invalid header length"),
        (struct.pack("<Q", 1 << 60) + b"{}", "header too large"),
    ],
)
def test_a_file_without_a_header_is_corrupt(content: bytes, match: str, tmp_path: Path) -> None:
    (model_folder(tmp_path) / "model.safetensors").write_bytes(content)

    with pytest.raises(InvalidData, match=f"is not a sound safetensors file: .*{match}"):
        check_model_folder(tmp_path)
