"""What config.json says about an architecture: its longest sequence, and why a model of it cannot run.

Everything here is decided from the file alone, so that a job is refused when it is submitted and not at its first step.
"""

from collections.abc import Iterator

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject, JsonValue, object_at

_POSITION_KEYS = ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "seq_length")
_LAYERS = ("full_attention", "sliding_attention")
_LOGIT_KEYS = ("final_logit_softcapping", "attn_logit_softcapping", "logit_scale", "logits_scaling")
"""Changes of logits that sampler, learner and reference compute."""
_NEUTRAL: tuple[JsonValue, ...] = (None, False, 0, 1)
_ROPE = ("default", "linear", "dynamic", "yarn", "longrope", "llama3", "proportional")
_ALIBI = ("bloom", "mpt")
_STATEFUL = frozenset(
    (
        "bamba",
        "falcon_h1",
        "falcon_mamba",
        "granitemoehybrid",
        "jamba",
        "lfm2",
        "lfm2_moe",
        "mamba",
        "mamba2",
        "minimax",
        "nemotron_h",
        "qwen3_5",
        "qwen3_5_moe",
        "qwen3_next",
        "recurrent_gemma",
        "rwkv",
        "xlstm",
        "zamba",
        "zamba2",
    )
)
_OTHER_HEADS = ("ForSequenceClassification", "ForMaskedLM", "ForTokenClassification", "ForQuestionAnswering")


def positions_of(config: JsonObject) -> int | None:
    """Return the longest input in tokens, None where the architecture has no bound. Raises InvalidData for a bad value.

    `longrope` has two sets of frequencies and changes to the second one in the middle of a long sequence, which a cache
    of keys cannot follow: its bound is where the first set ends.
    """
    bound = whole_number(config, _POSITION_KEYS)
    for key, rope in _ropes(config):
        if _rope_type(rope) == "longrope":
            original = rope.get("original_max_position_embeddings") or whole_number(
                config, ("original_max_position_embeddings",)
            )
            if type(original) is not int or original < 1:
                raise InvalidData(
                    f"{key} is longrope and names no original_max_position_embeddings, the length that the model was "
                    "trained with; add it."
                )
            bound = original if bound is None else min(bound, original)
    return bound


def check_architecture(config: JsonObject) -> None:
    """Raise InvalidData naming the field, its value and a way out unless models of this config can be trained."""
    for problem in (*_general_problems(config), *_attention_problems(config), *_number_problems(config)):
        raise InvalidData(problem)


def check_policy_heads(architectures: tuple[str, ...]) -> None:
    """Raise InvalidData for a folder whose architectures say that it is no language model."""
    for name in architectures:
        if name.endswith(_OTHER_HEADS):
            raise InvalidData(
                f"config.json: architectures is {name}, which writes no text. Name the language model (...ForCausalLM) "
                "that it was made from."
            )


def whole_number(config: JsonObject, keys: tuple[str, ...]) -> int | None:
    """Return the first of the keys that the config or its text_config has. Raises InvalidData if it is not from 1."""
    for section in (config, object_at(config, "text_config")):
        for key in keys:
            value = section.get(key)
            if value is None:
                continue
            if type(value) is not int or not 1 <= value < 2**31:
                raise InvalidData(f"config.json: {key} must be a whole number from 1, not {value!r:.80}.")
            return value
    return None


def _general_problems(config: JsonObject) -> Iterator[str]:
    family = config.get("model_type")
    if config.get("is_encoder_decoder") is True:
        yield (
            f"config.json: is_encoder_decoder is true ({family}): prompt and completion are not one sequence. Use a "
            "decoder-only model."
        )
    quantization = config.get("quantization_config")
    if isinstance(quantization, dict):
        method = quantization.get("quant_method", "of unknown method")
        yield (
            f"config.json: quantization_config is {method}: quantized weights cannot be trained. Use the float16, "
            "bfloat16 or float32 weights that it was made from."
        )
    if family in _STATEFUL:
        yield (
            f"config.json: model_type is {family}, whose layers keep a state that is no list of keys and values; the "
            "sampler cannot read it. Use an attention-only model; docs/models.md lists families."
        )


def _attention_problems(config: JsonObject) -> Iterator[str]:
    family = config.get("model_type")
    if family in _ALIBI or config.get("alibi") is True:
        yield (
            f"config.json: {'alibi is true' if config.get('alibi') is True else f'model_type is {family}'}: positions "
            "by attention biases (ALiBi) cannot be sampled in batches here. Use a model with rotary or learned "
            "positions."
        )
    for section in (config, object_at(config, "text_config")):
        layers = section.get("layer_types")
        for layer in layers if isinstance(layers, list) else ():
            if layer not in _LAYERS:
                yield (
                    f"config.json: layer_types holds {layer!r:.60}; only {' and '.join(_LAYERS)} can be sampled from. "
                    "Use a model with these; docs/models.md lists families."
                )
                return
    for key, rope in _ropes(config):
        if _rope_type(rope) not in _ROPE:
            yield (
                f"config.json: {key} is {_rope_type(rope)!r:.60}, which transformers does not have; it has "
                f"{', '.join(_ROPE)}. Name the one that the model was trained with."
            )


def _number_problems(config: JsonObject) -> Iterator[str]:
    for section in (config, object_at(config, "text_config")):
        for key, value in section.items():
            changes = "logit" in key and "router" not in key and not key.startswith("logits_to")
            if key in _LOGIT_KEYS:
                if not _is_factor(value):
                    yield f"config.json: {key} must be a number above 0 or null, not {value!r:.60}."
            elif (changes or key.startswith("lm_head_mult")) and value not in _NEUTRAL:
                yield (
                    f"config.json: {key} is {value!r:.60}: a change of the logits that is not supported; those by "
                    f"{', '.join(_LOGIT_KEYS)} are. Use a model without it; docs/models.md lists families."
                )


def _is_factor(value: JsonValue) -> bool:
    if value is None or value is False:
        return True
    return isinstance(value, int | float) and value is not True and 0 < value < float("inf")


def _ropes(config: JsonObject) -> Iterator[tuple[str, JsonObject]]:
    """Yield the rope scalings by key. Some configs have one for each kind of layer."""
    for section in (config, object_at(config, "text_config")):
        for key in ("rope_scaling", "rope_parameters"):
            rope = object_at(section, key)
            if _rope_type(rope) is not None:
                yield key, rope
            yield from ((f"{key}.{layer}", object_at(rope, layer)) for layer in _LAYERS if layer in rope)


def _rope_type(rope: JsonObject) -> JsonValue:
    value = rope.get("rope_type", rope.get("type"))
    return "longrope" if value == "su" else value
