"""Every reader of a file against bytes that are not what they should be: an error of ours, or a sound result."""

import csv
import io
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from tests.fuzz.mutations import hostile_bytes, hostile_json
from tests.integration.orchestrator.world import write_model
from tests.unit.batches.test_batches import ROLLOUT
from tests.unit.data.scratch import prepare_pairs, prepare_prompts, prepare_sft
from tests.unit.text.folders import CHATML, bpe_tokenizer

from quatrain.batches import TokenRow, read_batch, read_tokens, write_batch, write_tokens
from quatrain.data import load_pairs, load_prompts, load_sft
from quatrain.data.records import PairRecord, PromptRecord, SftRecord
from quatrain.data.tables import read_pairs, read_prompts, read_sft
from quatrain.digests import canonical_json, sha256_hex
from quatrain.errors import QuatrainError
from quatrain.joblog import Event, JobLog
from quatrain.joblog.events import event_key, parse_event
from quatrain.joblog.jobs import read_spec
from quatrain.joblog.payloads import payload_from
from quatrain.jobspec import load_yaml, parse_spec
from quatrain.jobspec.reward_section import RewardSection
from quatrain.storage.folders import read_manifest
from quatrain.storage.memory import MemoryStore
from quatrain.text import Tokenizer, check_model_folder

EVERYDAY, MANY = 40, 1500
PAIR = {"prompt": [{"role": "user", "content": "a"}], "chosen": "b", "rejected": "c", "margin": 0.5}
PROMPT = {"prompt": "ab", "topic": ["t", {"deep": 1.5}], "n": 3}
SPEC = """
name: small
model: {uri: "sha256:aa", dtype: float32}
sft: &sft {data: {uri: x.jsonl}, learning_rate: 1e-5}
reward: {functions: [{path: "rewards:length", weight: 1.0}]}
ppo: {prompts: {uri: p.jsonl}, steps: 3, generation: {max_new_tokens: 6}}
"""
PLAN = {
    "models": [{"uri": "sha256:aa", "digest": "aa", "weight": 1.0, "offset": 0.5, "name": "m"}],
    "functions": [{"path": "a:b", "code_digest": "", "weight": 1.0, "name": "f"}],
    "service": "host:1",
    "offset": 0.0,
    "scale": 1.0,
    "clip": 2.0,
    "timeout": 3.0,
}


def lines(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def table(*rows: dict[str, Any]) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(list(rows)), sink, compression="gzip")
    return sink.getvalue()


def sheet(*rows: dict[str, Any]) -> bytes:
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def data_file(name: str, load: Callable[..., Any]) -> Callable[[bytes, Path], object]:
    def read(data: bytes, folder: Path) -> object:
        (folder / name).write_bytes(data)
        return load(folder / name)

    return read


def model_file(name: str) -> Callable[[bytes, Path], object]:
    """The model folder as it is, but for one file."""

    def read(data: bytes, folder: Path) -> object:
        root = folder / "model"
        if not root.exists():
            whole_model(root)
        before = (root / name).read_bytes()
        (root / name).write_bytes(data)
        try:
            check_model_folder(root)
            tokenizer = Tokenizer.load(root)
            tokenizer.decode(tokenizer.encode_prompt([{"role": "user", "content": "Hello, where is my parcel?"}]))
            return tokenizer.digest
        finally:
            (root / name).write_bytes(before)

    return read


def whole_model(root: Path) -> None:
    write_model(root)
    bpe_tokenizer().save(str(root / "tokenizer.json"))
    special = {"content": "<|im_end|>", "special": True, "lstrip": False}
    config = {"eos_token": special, "tokenizer_class": "Qwen2TokenizerFast", "added_tokens_decoder": {"1": special}}
    (root / "tokenizer_config.json").write_text(json.dumps(config))
    (root / "chat_template.jinja").write_text(CHATML)
    (root / "generation_config.json").write_text(json.dumps({"eos_token_id": [1, 2]}))
    config = json.loads((root / "config.json").read_text())
    (root / "config.json").write_text(json.dumps({**config, "vocab_size": 420, "eos_token_id": 1}))


def event_log(data: bytes, _folder: Path) -> object:
    store = MemoryStore()
    store.put(event_key("job", 1), data)
    return JobLog(store, "job").refresh()


def stored(key: str, read: Callable[[MemoryStore, str], object]) -> Callable[[bytes, Path], object]:
    def run(data: bytes, _folder: Path) -> object:
        store = MemoryStore()
        store.put(key, data)
        return read(store, sha256_hex(data))

    return run


def event() -> bytes:
    placed = replace(
        Event(payload_from("cancel_requested", {"now": False, "reason": "enough"}), "me"),
        revision=1,
        time="2026-01-01T00:00:00.000Z",
    )
    return placed.to_bytes()


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Sound bytes of each kind of file."""
    root = tmp_path_factory.mktemp("sound") / "model"
    whole_model(root)
    tokenizer = Tokenizer.load(root)
    numbers = np.ones(2, dtype=np.float32)
    answer, prompt = "Hello", [{"role": "user", "content": "Hello"}]
    files = {f"model/{path.name}": path.read_bytes() for path in sorted(root.iterdir())}
    return files | {
        "sft.jsonl": lines({"prompt": "a", "completion": "b"}, {"prompt": "a", "completion": "c"}),
        "pairs.jsonl": lines(PAIR, PAIR),
        "prompts.jsonl": lines(PROMPT, PROMPT),
        "prompts.json": json.dumps([PROMPT, PROMPT]).encode(),
        "prompts.csv": sheet({"prompt": "a\nb", "topic": "x"}, {"prompt": '"q"', "topic": "ä"}),
        "prompts.parquet": table({**PROMPT, "topic": ["t"]}, {"prompt": "b", "n": 1}),
        "prompts": lines(PROMPT),
        "spec": SPEC.encode(),
        "plan": json.dumps(PLAN).encode(),
        "event": event(),
        "log": event(),
        "job": canonical_json({"spec": {"name": "x"}, "owner": "me"}),
        "manifest": canonical_json({"files": {"a/b": {"sha256": "0" * 64, "size": 3}}}),
        "batch": write_batch([ROLLOUT, ROLLOUT]),
        "tokens": write_tokens([TokenRow("r", numbers, numbers, numbers, numbers, numbers)]),
        "sft table": prepare_sft([SftRecord(prompt, answer, 1)], tokenizer, 64).data,
        "pair table": prepare_pairs([PairRecord(prompt, answer, "We", None, 1)], tokenizer, 64).data,
        "prompt table": prepare_prompts([PromptRecord(prompt, {"a": 1}, 1)], tokenizer, 64, "drop").data,
    }


READERS: dict[str, Callable[[bytes, Path], object]] = {
    "sft.jsonl": data_file("sft.jsonl", load_sft),
    "pairs.jsonl": data_file("pairs.jsonl", load_pairs),
    "prompts.jsonl": data_file("prompts.jsonl", load_prompts),
    "prompts.json": data_file("prompts.json", load_prompts),
    "prompts.csv": data_file("prompts.csv", load_prompts),
    "prompts.parquet": data_file("prompts.parquet", load_prompts),
    "prompts": data_file("prompts", load_prompts),
    "spec": lambda data, _: parse_spec(load_yaml(data.decode("utf-8", "surrogateescape"))),
    "plan": lambda data, _: RewardSection.from_text(data.decode("utf-8", "replace")),
    "event": lambda data, _: parse_event(data, event_key("job", 1)),
    "log": event_log,
    "job": stored("jobs/j/spec.json", lambda store, _: read_spec(store, "j")),
    "manifest": stored("m/manifest.json", lambda store, digest: read_manifest(store, "m", digest)),
    "batch": lambda data, _: read_batch(data),
    "tokens": lambda data, _: read_tokens(data),
    "sft table": lambda data, _: read_sft(data),
    "pair table": lambda data, _: read_pairs(data),
    "prompt table": lambda data, _: read_prompts(data),
    **{
        f"model/{name}": model_file(name)
        for name in (
            *("config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"),
            *("chat_template.jinja", "model.safetensors"),
        )
    },
}


def cases(sound: bytes, seed: str, count: int) -> Iterator[bytes]:
    """Spoiled bytes; where they are JSON, also sound JSON of hostile values."""
    for number in range(count):
        random_ = random.Random(f"{seed}/{number}")
        try:
            value = json.loads(sound) if random_.random() < 0.6 else None
            yield hostile_bytes(random_, sound) if value is None else dumped(hostile_json(random_, value))
        except ValueError:
            yield hostile_bytes(random_, sound)


def dumped(value: Any) -> bytes:
    try:
        return json.dumps(value).encode()
    except (RecursionError, ValueError):
        return b"[" * 100_000


def attack(name: str, sound: bytes, folder: Path, seed: str, count: int) -> list[str]:
    """What went wrong, with the number of the case."""
    wrong = []
    for number, data in enumerate(cases(sound, f"{seed}/{name}", count)):
        try:
            READERS[name](data, folder)
        except QuatrainError as error:
            try:
                error.message.encode()
            except UnicodeEncodeError:
                wrong.append(f"{seed}/{name}/{number}: a message that is no text: {error.message[:200]!r}")
        except BaseException as error:  # noqa: BLE001  a panic of a native library is no Exception
            wrong.append(f"{seed}/{name}/{number}: {type(error).__name__}: {str(error)[:200]} of {data[:200]!r}")
    return wrong


def test_every_kind_of_file_has_a_reader_here(sound: dict[str, bytes], tmp_path: Path) -> None:
    assert set(READERS) == set(sound)
    for name, read in READERS.items():
        assert read(sound[name], tmp_path) is not None


@pytest.mark.parametrize("name", READERS)
def test_spoiled_files_are_refused_in_our_words(name: str, sound: dict[str, bytes], tmp_path: Path) -> None:
    assert attack(name, sound[name], tmp_path, "1", EVERYDAY) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", READERS)
def test_many_more_spoiled_files(name: str, sound: dict[str, bytes], tmp_path: Path) -> None:
    assert attack(name, sound[name], tmp_path, "2", MANY) == []
