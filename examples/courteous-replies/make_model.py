"""Makes the example's base model: a byte-level BPE tokenizer trained on the texts, a small Qwen2 with random weights.

    python make_model.py [--data FOLDER] [--out FOLDER]

The folder opens with transformers' AutoTokenizer and AutoModelForCausalLM. It has learnt nothing yet; the job's SFT
stage teaches it English as far as this example needs it.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM, Qwen2Tokenizer
from transformers.utils.logging import disable_progress_bar

HERE = Path(__file__).resolve().parent
SEED = 7
VOCABULARY = 1024
END, PAD = "<|endoftext|>", "<|pad|>"
HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 128, 384, 4, 4, 2
POSITIONS = 1024
# Three times transformers' own spread, which is meant for wide models: with it SFT would need twice the steps.
SPREAD = 0.06


def texts(data: Path) -> Iterator[str]:
    """What the tokenizer is trained on: the SFT rows and the answers of the pairs."""
    for name, columns in (("sft", ("prompt", "completion")), ("preferences", ("chosen", "rejected"))):
        for line in (data / f"{name}.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            yield from (row[column] for column in columns)


def make_tokenizer(data: Path) -> Qwen2Tokenizer:
    """A tokenizer that splits words as Qwen2's does; equal texts give equal merges. END has id 0, PAD id 1."""
    blank = Qwen2Tokenizer(eos_token=END, pad_token=PAD, unk_token=END, model_max_length=POSITIONS)
    trained: Qwen2Tokenizer = blank.train_new_from_iterator(  # type: ignore[no-untyped-call]
        texts(data), VOCABULARY, show_progress=False
    )
    return trained


def make_model(end: int, pad: int) -> Qwen2ForCausalLM:
    """The random model, about a million parameters; input and output share their embedding."""
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=INNER,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=KEY_HEADS,
        max_position_embeddings=POSITIONS,
        initializer_range=SPREAD,
        tie_word_embeddings=True,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=end,
        pad_token_id=pad,
        dtype=torch.float32,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(SEED)
        return Qwen2ForCausalLM(config)


def make(data: Path, folder: Path) -> Path:
    """Writes tokenizer and model into the folder."""
    tokenizer = make_tokenizer(data)
    if len(tokenizer) != VOCABULARY:
        raise ValueError(f"the texts in {data} gave {len(tokenizer)} tokens instead of {VOCABULARY}")
    disable_progress_bar()  # type: ignore[no-untyped-call]
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    make_model(tokenizer.eos_token_id, tokenizer.pad_token_id).save_pretrained(folder)
    return folder


def main() -> None:
    """Writes base-model beside this script, or into --out."""
    parser = argparse.ArgumentParser(description="Makes the example's base model from its data.")
    parser.add_argument("--data", type=Path, default=HERE)
    parser.add_argument("--out", type=Path, default=HERE / "base-model")
    arguments = parser.parse_args()
    print(make(arguments.data, arguments.out))


if __name__ == "__main__":
    main()
