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
from quatrain.text.safetensors_header import read_header

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
        (b"\xff\xfe", b"", "not JSON"),
        (b"[" * 50_000, b"", "not JSON"),
        ([], b"", "not a JSON object"),
        ({"a": 3}, b"", "lacks dtype"),
        ({"a": {**ENTRY, "data_offsets": [0]}}, b"", "lacks dtype, shape or data_offsets"),
        ({"a": {**ENTRY, "dtype": "Q9"}}, b"12345678", "unknown dtype"),
        ({"a": {**ENTRY, "shape": [-2]}}, b"12345678", "whole numbers"),
        ({"a": {**ENTRY, "shape": "x"}}, b"12345678", "whole numbers"),
        ({"a": {**ENTRY, "shape": [3]}}, b"12345678", "needs 12 bytes"),
        ({"a": {**ENTRY, "data_offsets": [1, 9]}}, b"123456789", "starts at byte 1"),
        ({"a": ENTRY, "b": ENTRY}, b"12345678", "starts at byte 0, not at 8"),
        ({"a": ENTRY}, b"1234", "cut short: the header describes 8 bytes of tensors, 4"),
        ({"a": ENTRY}, b"123456789", "1 bytes follow"),
    ],
)
def test_a_corrupt_file_is_named_with_its_fault(header: Any, data: bytes, match: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    raw_file(path, header, data)

    with pytest.raises(InvalidData, match=match) as caught:
        read_header(path)

    assert "model.safetensors is not a sound safetensors file" in caught.value.message


@pytest.mark.parametrize("content", [b"", b"1234", struct.pack("<Q", 100) + b"{}", struct.pack("<Q", 1 << 60) + b"{}"])
def test_a_file_without_a_header_is_corrupt(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)

    with pytest.raises(InvalidData, match="sound safetensors"):
        read_header(path)
