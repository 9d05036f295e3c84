"""Tiny random Qwen2 folders: a policy with its tokenizer, and a reward model of the same shape."""

import json
from pathlib import Path

import torch
from transformers import PreTrainedModel, Qwen2Config, Qwen2ForCausalLM, Qwen2ForSequenceClassification

from bench.cases import HEADS, HIDDEN, INTERMEDIATE, LAYERS, MAX_POSITIONS, Case, word


def write_policy(folder: Path, case: Case) -> Path:
    """Write a policy near the uniform distribution, so that completion lengths follow the case's end probability."""
    return _write(folder, case, Qwen2ForCausalLM, seed=0)


def write_reward_model(folder: Path, case: Case) -> Path:
    """Write a reward model with a random head; it costs what a trained one costs."""
    return _write(folder, case, Qwen2ForSequenceClassification, seed=1)


def _write(folder: Path, case: Case, kind: type[PreTrainedModel], seed: int) -> Path:
    config = Qwen2Config(
        vocab_size=case.vocabulary,
        hidden_size=HIDDEN,
        intermediate_size=INTERMEDIATE,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=MAX_POSITIONS,
        eos_token_id=case.eos_id,
        pad_token_id=case.pad_id,
        bos_token_id=None,
    )
    config.num_labels = 1
    torch.manual_seed(seed)
    kind(config).save_pretrained(folder)
    (folder / "tokenizer.json").write_text(json.dumps(_tokenizer(case)), encoding="utf-8")
    special = {"eos_token": word(case.eos_id), "pad_token": word(case.pad_id)}
    document = {"tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": MAX_POSITIONS, **special}
    (folder / "tokenizer_config.json").write_text(json.dumps(document), encoding="utf-8")
    return folder


def _tokenizer(case: Case) -> dict[str, object]:
    """Return a tokenizer.json with one word for each id, divided by spaces."""
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": None,
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": None,
        "decoder": None,
        "model": {
            "type": "WordLevel",
            "vocab": {word(token): token for token in range(case.vocabulary)},
            "unk_token": word(0),
        },
    }
