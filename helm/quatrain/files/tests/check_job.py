"""A tiny PPO job, with a model that is made here and a reward function that Quatrain brings, to its end."""

import argparse
import json
import random
import struct
import sys
import tempfile
from pathlib import Path

from quatrain.client import Client
from quatrain.errors import QuatrainError
from quatrain.json_values import JsonObject

SYMBOLS, WIDTH, INNER = 8, 16, 32
REWARD = "quatrain.reward.builtin:brevity"


def main() -> int:
    """Run a job and return 0 when it succeeded."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--pool", required=True)
    parser.add_argument("--seconds", type=float, required=True)
    given = parser.parse_args()
    try:
        with tempfile.TemporaryDirectory() as folder, Client() as client:
            job = client.submit(make_spec(Path(folder), given.pool))
            print(f"submitted {job.id}", flush=True)
            ended = client.wait(job.id, timeout=given.seconds)
            print(f"{ended.id}: {ended.state} {ended.error or ''}")
            if ended.state != "SUCCEEDED":
                return 1
            client.delete(job.id, reason="it was a test of the installation")
    except QuatrainError as error:
        print(error.message)
        return 1
    return 0


def make_spec(folder: Path, pool: str) -> JsonObject:
    """Write the files of a job into the folder and return its spec."""
    make_model(folder / "model")
    prompts = folder / "prompts.jsonl"
    prompts.write_text("".join(json.dumps({"prompt": f"s1 s{i}"}) + "\n" for i in range(4)))
    return {
        "name": "helm-test",
        "pool": pool,
        "model": {"uri": f"file://{folder / 'model'}"},
        "reward": {"functions": [{"path": REWARD}]},
        "ppo": {
            "prompts": str(prompts),
            "steps": 2,
            "prompts_per_step": 4,
            "chunk_size": 2,
            "max_prompt_length": 8,
            "generation": {"max_new_tokens": 4},
        },
    }


def make_model(folder: Path) -> None:
    """Write a Qwen2 of one layer with random weights, and a tokenizer of eight words."""
    folder.mkdir()
    config = {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "dtype": "float32",
        "vocab_size": SYMBOLS,
        "hidden_size": WIDTH,
        "intermediate_size": INNER,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "tie_word_embeddings": False,
        "eos_token_id": 0,
        "bos_token_id": None,
    }
    (folder / "config.json").write_text(json.dumps(config))
    words = {"type": "WordLevel", "vocab": {f"s{i}": i for i in range(SYMBOLS)}, "unk_token": "none"}
    empty = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": words}
    (folder / "tokenizer.json").write_text(json.dumps({**empty, **tokenizer}))
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "s0", "pad_token": "s1"}
    (folder / "tokenizer_config.json").write_text(json.dumps(special))
    write_safetensors(folder / "model.safetensors", shapes())


def shapes() -> dict[str, tuple[int, ...]]:
    """Return the shape of every weight by its name in transformers."""
    layer = "model.layers.0"
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (SYMBOLS, WIDTH),
        "lm_head.weight": (SYMBOLS, WIDTH),
    }
    for name in ("q_proj", "k_proj", "v_proj"):
        shapes |= {f"{layer}.self_attn.{name}.weight": (WIDTH, WIDTH), f"{layer}.self_attn.{name}.bias": (WIDTH,)}
    shapes[f"{layer}.self_attn.o_proj.weight"] = (WIDTH, WIDTH)
    shapes |= {f"{layer}.mlp.{name}.weight": (INNER, WIDTH) for name in ("gate_proj", "up_proj")}
    shapes[f"{layer}.mlp.down_proj.weight"] = (WIDTH, INNER)
    norms = (f"{layer}.input_layernorm", f"{layer}.post_attention_layernorm", "model.norm")
    return shapes | {f"{name}.weight": (WIDTH,) for name in norms}


def write_safetensors(path: Path, shapes: dict[str, tuple[int, ...]]) -> None:
    """Write small normal numbers, float32, in the order of the names; the same bytes each time."""
    draw = random.Random(1)
    header: dict[str, object] = {"__metadata__": {"format": "pt"}}
    data = b""
    for name, shape in sorted(shapes.items()):
        count = shape[0] * (shape[1] if len(shape) > 1 else 1)
        # A norm's weights are factors, so they are drawn near 1.
        center = 1.0 if "norm" in name else 0.0
        numbers = struct.pack(f"<{count}f", *(draw.gauss(center, 0.05) for _ in range(count)))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [len(data), len(data) + len(numbers)]}
        data += numbers
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


if __name__ == "__main__":
    sys.exit(main())
