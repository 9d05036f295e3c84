"""Builds the tiny models of the closed-form tasks as Hugging Face folders.

    python -m tests.closed_form.models OUT --vocab-size 6

A Qwen2 of two layers and width 32 with an untied output head of zeros: uniform over exactly V symbols, and able to
learn (with a tied head, zeros would leave no gradient). Its tokenizer knows the words s0 .. s{V-1}; end of sequence
and padding are ordinary symbols among them, so that nothing may infer a mask from ids.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM


@dataclass(frozen=True)
class TinyModel:
    """What to build. `head_std` above 0 draws a random head instead of zeros."""

    vocab_size: int
    eos_id: int = 0
    pad_id: int = 1
    hidden_size: int = 32
    layers: int = 2
    max_positions: int = 64
    head_std: float = 0.0
    seed: int = 0


def build(folder: Path, spec: TinyModel) -> Path:
    """Write the folder: config, safetensors weights, generation config, tokenizer. Equal specs give equal bytes."""
    if not (0 <= spec.eos_id < spec.vocab_size and 0 <= spec.pad_id < spec.vocab_size):
        raise ValueError(f"ids {spec.eos_id} and {spec.pad_id} are not among the {spec.vocab_size} symbols")
    folder.mkdir(parents=True, exist_ok=True)
    _model(spec).save_pretrained(folder, safe_serialization=True)
    _write(folder / "tokenizer.json", _tokenizer(spec.vocab_size))
    _write(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": f"s{spec.eos_id}",
            "pad_token": f"s{spec.pad_id}",
            "model_max_length": spec.max_positions,
        },
    )
    return folder


def _model(spec: TinyModel) -> Qwen2ForCausalLM:
    config = Qwen2Config(
        vocab_size=spec.vocab_size,
        hidden_size=spec.hidden_size,
        intermediate_size=2 * spec.hidden_size,
        num_hidden_layers=spec.layers,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=spec.max_positions,
        tie_word_embeddings=False,
        attention_dropout=0.0,
        bos_token_id=None,
        dtype=torch.float32,
        eos_token_id=spec.eos_id,
        pad_token_id=None,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(spec.seed)
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            model.lm_head.weight.normal_(std=spec.head_std) if spec.head_std else model.lm_head.weight.zero_()
    return model


def _tokenizer(vocab_size: int) -> dict[str, object]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": None,
        "decoder": None,
        # No unknown word: a text with any other word is refused by the tokenizer.
        "model": {"type": "WordLevel", "vocab": {f"s{i}": i for i in range(vocab_size)}, "unk_token": "<unknown>"},
    }


def _write(path: Path, document: dict[str, object]) -> None:
    path.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n", encoding="utf-8")


def main() -> None:
    """Build a folder from the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--vocab-size", type=int, required=True)
    parser.add_argument("--eos-id", type=int, default=0)
    parser.add_argument("--pad-id", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    build(
        arguments.folder,
        TinyModel(arguments.vocab_size, arguments.eos_id, arguments.pad_id, seed=arguments.seed),
    )


if __name__ == "__main__":
    main()
