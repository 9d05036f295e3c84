"""Random models of a few thousand parameters of the architectures that people bring, from transformers' own configs."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

WINDOW = 8
"""Tokens that a layer with a window sees: fewer than the tests' prompts have."""


@dataclass(frozen=True)
class Family:
    """An architecture: how docs/models.md names it, its model_type, and what its config needs."""

    title: str
    model_type: str
    config: Mapping[str, Any] = field(default_factory=dict)


_LLAMA: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
_NEOX = {key: value for key, value in _LLAMA.items() if key != "num_key_value_heads"}
_GPT2: Mapping[str, Any] = {"n_embd": 32, "n_layer": 2, "n_head": 4}
_GEMMA: Mapping[str, Any] = {**_LLAMA, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
_EXPERTS: Mapping[str, Any] = {**_LLAMA, "num_experts": 4, "num_experts_per_tok": 2}
_LAYERS = ["sliding_attention", "full_attention"]

FAMILIES = (
    Family("Llama 2, 3", "llama", _LLAMA),
    Family(
        "Llama 3.1 (rope scaling)",
        "llama",
        {
            **_LLAMA,
            "rope_parameters": {
                "rope_type": "llama3",
                "rope_theta": 10000.0,
                "factor": 8.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 16,
            },
        },
    ),
    Family("SmolLM, SmolLM2", "llama", {**_LLAMA, "num_attention_heads": 4, "tie_word_embeddings": True}),
    Family("SmolLM3", "smollm3", {**_LLAMA, "pad_token_id": 0}),
    Family("Qwen2, Qwen2.5", "qwen2", _LLAMA),
    Family("Qwen3", "qwen3", {**_LLAMA, "head_dim": 8}),
    Family("Mistral", "mistral", {**_LLAMA, "sliding_window": None}),
    Family("Mistral with a sliding window", "mistral", {**_LLAMA, "sliding_window": WINDOW}),
    Family("Gemma", "gemma", {**_LLAMA, "head_dim": 8}),
    Family("Gemma 2", "gemma2", {**_GEMMA, "final_logit_softcapping": 1.5, "attn_logit_softcapping": 1.0}),
    Family("Gemma 3 (text)", "gemma3_text", {**_GEMMA, "layer_types": _LAYERS}),
    Family("Phi-3, Phi-4", "phi3", {**_LLAMA, "pad_token_id": 0}),
    Family("Phi-1, Phi-2", "phi", _NEOX),
    Family("GPT-2", "gpt2", _GPT2),
    Family("GPT-NeoX, Pythia", "gpt_neox", _NEOX),
    Family(
        "OPT",
        "opt",
        {
            "hidden_size": 32,
            "ffn_dim": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "word_embed_proj_dim": 32,
        },
    ),
    Family(
        "Falcon (rotary)",
        "falcon",
        {
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "alibi": False,
            "multi_query": True,
            "new_decoder_architecture": False,
        },
    ),
    Family("StableLM", "stablelm", _LLAMA),
    Family("OLMo", "olmo", _LLAMA),
    Family("OLMo 2", "olmo2", _LLAMA),
    Family("OLMo 3", "olmo3", {**_LLAMA, "sliding_window": WINDOW, "layer_types": _LAYERS}),
    Family(
        "Granite",
        "granite",
        {
            **_LLAMA,
            "logits_scaling": 4.0,
            "embedding_multiplier": 3.0,
            "attention_multiplier": 0.1,
            "residual_multiplier": 0.5,
        },
    ),
    Family("Cohere Command R", "cohere", {**_LLAMA, "logit_scale": 0.25}),
    Family("Cohere Command R7B", "cohere2", {**_LLAMA, "logit_scale": 0.25, "sliding_window": WINDOW}),
    Family("StarCoder2", "starcoder2", _LLAMA),
    Family("Mixtral", "mixtral", {**_LLAMA, "num_local_experts": 4, "num_experts_per_tok": 2}),
    Family("Qwen2-MoE", "qwen2_moe", {**_EXPERTS, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 32}),
    Family("Qwen3-MoE", "qwen3_moe", {**_EXPERTS, "head_dim": 8, "moe_intermediate_size": 32}),
    Family("OLMoE", "olmoe", _EXPERTS),
)

REFUSED_FAMILIES = (
    Family(
        "Falcon with ALiBi",
        "falcon",
        {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "alibi": True, "multi_query": True},
    ),
    Family("BLOOM", "bloom", {"hidden_size": 32, "n_layer": 2, "n_head": 4}),
    Family("MPT", "mpt", {"d_model": 32, "n_heads": 4, "n_layers": 2}),
    Family("Mamba", "mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
)


def save_family(
    folder: Path, family: Family, *, vocabulary: int = 40, positions: int = 64, seed: int = 0, end: int = 2
) -> Path:
    """Save a random model of the family and return the folder. Its weights are large enough for tests to see errors."""
    torch.manual_seed(seed)
    lengths = {"gpt2": "n_positions"}
    sizes = {"vocab_size": vocabulary, lengths.get(family.model_type, "max_position_embeddings"): positions}
    config = AutoConfig.for_model(family.model_type, **family.config, **sizes, bos_token_id=1, eos_token_id=end)
    auto: Any = AutoModelForCausalLM
    model = auto.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(0.0, 0.2)
    model.save_pretrained(folder)
    return folder
