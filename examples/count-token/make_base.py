"""Makes the task's base model: a small Qwen2 whose output head is zero, so that it is uniform over exactly six symbols.

    python make_base.py [--out FOLDER]

The head is not tied to the embedding: tied, zeros would leave no gradient. End of sequence and padding are two of the
six ordinary symbols, so nothing may infer from ids where a completion ends.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).resolve().parent
SYMBOLS = 6
WIDTH, LAYERS, HEADS = 32, 2, 2
SEED = 0


def make(folder: Path) -> Path:
    """Writes model and tokenizer into the folder."""
    disable_progress_bar()  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        model = Qwen2ForCausalLM(_config())
    torch.nn.init.zeros_(model.lm_head.weight)
    model.save_pretrained(folder)
    # No unknown word: a text with a word other than s0 .. s5 is refused.
    words = {"type": "WordLevel", "vocab": {f"s{i}": i for i in range(SYMBOLS)}, "unk_token": "none"}
    tokenizer = {"version": "1.0", "added_tokens": [], "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": words}
    parts = dict.fromkeys(("truncation", "padding", "normalizer", "post_processor", "decoder"))
    _write(folder / "tokenizer.json", {**parts, **tokenizer})
    special = {"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "s0", "pad_token": "s1"}
    _write(folder / "tokenizer_config.json", special)
    return folder


def _config() -> Qwen2Config:
    return Qwen2Config(
        vocab_size=SYMBOLS,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=None,
        dtype=torch.float32,
    )


def _write(path: Path, document: Mapping[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    """Writes base-model beside this script, or into --out."""
    parser = argparse.ArgumentParser(description="Makes the base model of the count-token task.")
    parser.add_argument("--out", type=Path, default=HERE / "base-model")
    print(make(parser.parse_args().out))


if __name__ == "__main__":
    main()
