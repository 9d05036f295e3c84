"""Small real inputs: a model folder that passes the checks, and a spec with everything it names."""

import json
import struct
from pathlib import Path

from tokenizers import Tokenizer
from tokenizers.models import WordLevel

SPEC = """\
name: small-job
model: {uri: file://base-model}
sft: {data: sft.jsonl}
reward:
  functions:
    - {path: "rewards.py:shortness"}
ppo: {prompts: prompts.jsonl, steps: 2, prompts_per_step: 4, chunk_size: 4}
"""


def write_model(folder: Path) -> Path:
    folder.mkdir(parents=True)
    config = {
        "model_type": "qwen2",
        "architectures": ["Qwen2ForCausalLM"],
        "vocab_size": 4,
        "max_position_embeddings": 16,
        "hidden_size": 2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    header = {"model.embed_tokens.weight": {"dtype": "F32", "shape": [4, 2], "data_offsets": [0, 32]}}
    text = json.dumps(header).encode()
    (folder / "model.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(32))
    vocabulary = {"Hi": 0, "Hello": 1, "?": 2, "<end>": 3}
    Tokenizer(WordLevel(vocabulary, unk_token="?")).save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    (folder / "training_args.bin").write_bytes(b"pickle")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "lock").write_text("x")
    return folder


def write_spec(folder: Path, text: str = SPEC) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "base-model")
    (folder / "sft.jsonl").write_text('{"prompt": "Hi", "completion": "Hello"}\n')
    (folder / "prompts.jsonl").write_text('{"prompt": "Hi"}\n')
    (folder / "rewards.py").write_text("def shortness(completions, **kwargs):\n    return [0.0 for _ in completions]\n")
    path = folder / "job.yaml"
    path.write_text(text)
    return path
