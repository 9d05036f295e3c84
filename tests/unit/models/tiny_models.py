"""Models of a few thousand parameters, saved as Hugging Face folders."""

from pathlib import Path
from typing import Any

import torch
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen2ForSequenceClassification,
)

ARCHITECTURES = ("qwen2", "llama", "gpt2")
VOCABULARY = 40
POSITIONS = 64


def tiny_model(
    kind: str = "qwen2", *, seed: int = 0, tied: bool = False, vocabulary: int = VOCABULARY
) -> PreTrainedModel:
    """A random float32 model in eval mode whose logits are spread enough for tests to see differences."""
    torch.manual_seed(seed)
    shape: dict[str, Any] = {
        "vocab_size": vocabulary,
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "intermediate_size": 64,
        "max_position_embeddings": POSITIONS,
        "initializer_range": 0.3,
        "tie_word_embeddings": tied,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    model: PreTrainedModel
    if kind == "qwen2":
        model = Qwen2ForCausalLM(Qwen2Config(**shape))
    elif kind == "llama":
        model = LlamaForCausalLM(LlamaConfig(**shape))
    elif kind == "reward":
        config = Qwen2Config(**shape)
        config.num_labels = 1
        build: Any = Qwen2ForSequenceClassification
        model = build(config)
    else:
        model = GPT2LMHeadModel(
            GPT2Config(
                vocab_size=vocabulary,
                n_embd=32,
                n_layer=2,
                n_head=4,
                n_positions=POSITIONS,
                initializer_range=0.3,
                resid_pdrop=0.1,
                attn_pdrop=0.1,
                embd_pdrop=0.1,
                bos_token_id=None,
                eos_token_id=None,
            )
        )
    model.train(False)
    return model


def save_tiny_model(
    folder: Path, kind: str = "qwen2", *, seed: int = 0, tied: bool = False, vocabulary: int = VOCABULARY
) -> Path:
    """Saves `tiny_model` in `folder` and returns it."""
    tiny_model(kind, seed=seed, tied=tied, vocabulary=vocabulary).save_pretrained(folder)
    return folder
