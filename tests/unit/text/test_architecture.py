"""What is decided from config.json and the weight files alone: each refusal names field, value and a way out."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
)

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject
from quatrain.text.architecture import check_architecture, check_policy_heads, positions_of
from quatrain.text.classifiers import NO_CLASSIFIER
from quatrain.text.finite_weights import check_finite_weights
from quatrain.text.tensors import embedding_problem, score_problem, value_head_tensors

ROPE: JsonObject = {"rope_type": "longrope", "short_factor": [1.0], "long_factor": [2.0]}


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"model_type": "t5", "is_encoder_decoder": True}, "is_encoder_decoder is true (t5)"),
        ({"quantization_config": {"quant_method": "gptq"}}, "quantization_config is gptq"),
        ({"model_type": "mamba2"}, "model_type is mamba2"),
        ({"model_type": "falcon", "alibi": True}, "alibi is true"),
        ({"model_type": "bloom"}, "model_type is bloom"),
        ({"layer_types": ["full_attention", "chunked_attention"]}, "layer_types holds 'chunked_attention'"),
        ({"text_config": {"layer_types": ["linear_attention"]}}, "layer_types holds 'linear_attention'"),
        ({"rope_scaling": {"type": "ntk-by-hand", "factor": 2.0}}, "rope_scaling is 'ntk-by-hand'"),
        (
            {"rope_parameters": {"sliding_attention": {"rope_type": "new"}}},
            "rope_parameters.sliding_attention is 'new'",
        ),
        ({"lm_head_multiplier": 0.05}, "lm_head_multiplier is 0.05"),
        ({"logit_multiplier": 2.0}, "logit_multiplier is 2.0"),
        ({"final_logit_softcapping": "30"}, "final_logit_softcapping must be a number above 0 or null, not '30'"),
        ({"final_logit_softcapping": -1.0}, "final_logit_softcapping must be a number above 0 or null, not -1.0"),
    ],
)
def test_architectures_that_cannot_run_are_refused_by_name(config: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidData) as caught:
        check_architecture(config)
    assert said in caught.value.message


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "gemma2", "final_logit_softcapping": 30.0, "attn_logit_softcapping": 50.0},
        {"model_type": "gemma3_text", "final_logit_softcapping": None, "layer_types": ["sliding_attention"]},
        {"model_type": "granite", "logits_scaling": 8.0},
        {"model_type": "cohere", "logit_scale": 0.0625, "quantization_config": None},
        {"model_type": "falcon", "alibi": False, "output_router_logits": True, "logits_to_keep": 1},
        {"model_type": "llama", "rope_scaling": {"rope_type": "llama3", "factor": 8.0}},
        {"model_type": "mistral", "sliding_window": 8, "lm_head_multiplier": 1.0},
    ],
)
def test_architectures_that_run_pass(config: dict[str, Any]) -> None:
    check_architecture(config)


def test_two_sets_of_rope_frequencies_bound_the_positions_at_the_first() -> None:
    phi: JsonObject = {
        "max_position_embeddings": 131072,
        "original_max_position_embeddings": 4096,
        "rope_scaling": {"type": "su"},
    }

    assert positions_of(phi) == 4096
    assert positions_of({**phi, "rope_scaling": None}) == 131072
    assert positions_of({"rope_parameters": {**ROPE, "original_max_position_embeddings": 32}}) == 32
    with pytest.raises(InvalidData, match="names no original_max_position_embeddings"):
        positions_of({"max_position_embeddings": 64, "rope_scaling": ROPE})


def test_a_model_with_another_head_is_no_policy() -> None:
    check_policy_heads(("LlamaForCausalLM",))
    check_policy_heads(("AutoModelForCausalLMWithValueHead",))
    with pytest.raises(InvalidData, match="architectures is LlamaForSequenceClassification, which writes no text"):
        check_policy_heads(("LlamaForSequenceClassification",))


def test_families_without_a_reward_model_are_those_of_transformers() -> None:
    assert (
        set(MODEL_FOR_CAUSAL_LM_MAPPING_NAMES) - set(MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES) == NO_CLASSIFIER
    )


def test_heads_of_reward_models_are_read_from_names_and_shapes() -> None:
    assert score_problem({"model.norm.weight": (4,), "score.weight": (1, 4)}) is None
    assert "it has 'v_head.summary.weight'" in str(score_problem({"v_head.summary.weight": (1, 4)}))
    assert "it has 'bert.classifier.weight'" in str(score_problem({"bert.classifier.weight": (1, 4)}))
    assert "gives 2 labels" in str(score_problem({"score.weight": (2, 4)}))
    assert "has a bias" in str(score_problem({"score.weight": (1, 4), "score.bias": (1,)}))


def test_value_heads_and_embeddings_of_another_size_are_seen() -> None:
    shapes = {"model.embed_tokens.weight": (40, 8), "v_head.summary.weight": (1, 8), "lm_head.weight": (40, 8)}

    assert value_head_tensors(shapes) == ["v_head.summary.weight"]
    assert embedding_problem(shapes, 40) is None
    assert "vocab_size is 48, but the tensor 'model.embed_tokens.weight' has 40 rows" in str(
        embedding_problem(shapes, 48)
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(dtype: torch.dtype, bad: float, tmp_path: Path) -> None:
    weights = {"a": torch.full((7,), torch.finfo(dtype).max, dtype=dtype), "b": torch.zeros(5, dtype=dtype)}
    (tmp_path / "good").mkdir()
    (tmp_path / "bad").mkdir()
    save_file({**weights, "ids": torch.full((3,), -1, dtype=torch.int64)}, tmp_path / "good" / "model.safetensors")
    weights["b"][3] = bad
    save_file(weights, tmp_path / "bad" / "model.safetensors")

    check_finite_weights(tmp_path / "good")
    with pytest.raises(
        InvalidData, match=r"model\.safetensors: the tensor 'b' holds NaN or infinity \(number 3 of 5\)"
    ):
        check_finite_weights(tmp_path / "bad")


def test_the_last_number_of_a_large_tensor_is_looked_at(tmp_path: Path) -> None:
    weight = torch.zeros(9 * 2**20, dtype=torch.bfloat16)
    weight[-1] = np.nan
    save_file({"w": weight}, tmp_path / "model-00001-of-00001.safetensors")
    (tmp_path / "consolidated.safetensors").write_text("of another program")
    index = {"weight_map": {"w": "model-00001-of-00001.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index), encoding="utf-8")

    with pytest.raises(InvalidData, match=f"number {9 * 2**20 - 1} of"):
        check_finite_weights(tmp_path)
