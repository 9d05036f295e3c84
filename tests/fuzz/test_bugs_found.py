"""Each bug that hostile input has found, by name."""

import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fuzz.test_readers import table, whole_model

from quatrain.batches import read_tokens
from quatrain.data import load_prompts
from quatrain.data.files import opening
from quatrain.errors import Corrupt, FieldViolation, InvalidData, InvalidInput, NotFound
from quatrain.joblog.events import event_key, parse_event
from quatrain.joblog.jobs import read_spec
from quatrain.joblog.snapshots import read_snapshot, snapshot_key
from quatrain.jobspec.reward_section import RewardSection
from quatrain.reward.samples import Malformed, _read_extra
from quatrain.storage.folders import read_manifest
from quatrain.storage.memory import MemoryStore
from quatrain.text import Tokenizer, check_model_folder

DEEP = b"[" * 100_000


@pytest.fixture
def model(tmp_path: Path) -> Path:
    root = tmp_path / "model"
    whole_model(root)
    return root


def edit(path: Path, **fields: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **fields}))


@pytest.mark.usefixtures("quick_rereads")
def test_json_that_is_nested_too_deep_is_no_json_anywhere() -> None:
    store = MemoryStore()
    for key in ("jobs/j/spec.json", "m/manifest.json", snapshot_key("j", 100)):
        store.put(key, DEEP)

    with pytest.raises(Corrupt, match="nested too deep"):
        parse_event(DEEP, event_key("j", 1))
    with pytest.raises(Corrupt, match="nested too deep"):
        read_spec(store, "j")
    with pytest.raises(Corrupt):
        read_manifest(store, "m", "0" * 64)
    assert read_snapshot(store, "j", 100) is None
    with pytest.raises(InvalidInput, match="nested too deep"):
        RewardSection.from_text(DEEP.decode())
    with pytest.raises(Malformed, match="nested too deep"):
        _read_extra(DEEP.decode())


@pytest.mark.parametrize(
    "field", [{"type": ["a"]}, {"revision": 1e400}, {"data": [["a", 1]]}, {"nonce": 5}, {"time": None}]
)
def test_an_event_with_a_field_of_another_type_is_corrupt(field: dict[str, object]) -> None:
    event = {"type": "t", "data": {}, "actor": "a", "epoch": 0, "attempt": 0, "nonce": "n", "time": "t", "revision": 1}

    with pytest.raises(Corrupt, match="is not an event"):
        parse_event(json.dumps({**event, **field}).encode(), event_key("j", 1))


def test_a_number_beyond_floats_in_a_reward_section_is_refused() -> None:
    with pytest.raises(InvalidInput, match="scale: Input should be a valid number"):
        RewardSection.from_text(json.dumps({"functions": [{"path": "a:b"}], "scale": 10**400}))


def test_a_column_name_without_bytes_gives_a_message_that_can_be_sent(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"\\ud800": 1}\n')

    with pytest.raises(InvalidData) as caught:
        load_prompts(tmp_path / "rows.jsonl")

    assert "\\ud800" in caught.value.message
    assert caught.value.message.encode()
    assert FieldViolation("\ud800", "\udfff").description.encode()
    assert str(NotFound("\ud800")).encode()


def test_architectures_that_are_no_list(model: Path) -> None:
    edit(model / "config.json", architectures=-1)

    with pytest.raises(InvalidData, match="architectures must be a list"):
        check_model_folder(model)


def test_a_vocabulary_beyond_every_tensor(model: Path) -> None:
    edit(model / "config.json", vocab_size=10**400)

    with pytest.raises(InvalidData, match="vocab_size must be a whole number"):
        check_model_folder(model)


@pytest.mark.parametrize("tokens", [{"1": "text"}, {"one": {}}, {"9" * 5000: {}}])
def test_added_tokens_that_are_no_tokens(model: Path, tokens: dict[str, object]) -> None:
    edit(model / "tokenizer_config.json", added_tokens_decoder=tokens)

    with pytest.raises(InvalidData, match="added_tokens_decoder"):
        Tokenizer.load(model)


def test_half_a_surrogate_pair_in_a_tokenizer(model: Path) -> None:
    edit(model / "tokenizer.json", version="\ud800")

    with pytest.raises(InvalidData, match="half a surrogate pair"):
        Tokenizer.load(model)


@pytest.mark.parametrize("field", ["odd", "pre_tokenizer"])
def test_a_number_that_is_none_in_a_tokenizer(model: Path, field: str) -> None:
    edit(model / "tokenizer.json", **{field: float("nan")})

    with pytest.raises(InvalidData, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(model)


@pytest.mark.parametrize(
    "field", [{"dtype": ["F32"]}, {"shape": [10**4000, 10**4000]}, {"data_offsets": [0, 10**5000]}]
)
def test_a_tensor_of_odd_type_or_beyond_every_file(model: Path, field: dict[str, object]) -> None:
    entry = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4], **field}
    try:
        header = json.dumps({"weight": entry}).encode()
    except ValueError:  # as long a number as Python writes
        header = b'{"weight": {"dtype": "F32", "shape": [1], "data_offsets": [0, ' + b"9" * 4299 + b"]}}"
    (model / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(4))

    with pytest.raises(InvalidData, match="not a sound safetensors file"):
        check_model_folder(model)


@pytest.mark.parametrize("rows", [["x" * 2**21] * 3000, ["x" * 2**26]])
def test_a_small_parquet_file_that_unpacks_to_more_than_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: list[str]
) -> None:
    monkeypatch.setattr(opening, "MIN_UNPACKED", 2**25)
    path = tmp_path / "bomb.parquet"
    indices = pa.array([0] * len(rows), type=pa.int32())
    column = pa.DictionaryArray.from_arrays(indices, pa.array(rows[:1]))
    pq.write_table(pa.table({"prompt": column}), path, compression="zstd")
    assert path.stat().st_size < 2**16

    with pytest.raises(InvalidData, match="unpacks to more than"):
        load_prompts(path)


def test_parquet_with_text_that_is_no_text_is_corrupt() -> None:
    spoiled = table({"rollout_id": "rrrrrrrr"}).replace(b"rollout_id", b"rollout_\xff\xfe")

    with pytest.raises(Corrupt):
        read_tokens(spoiled)
