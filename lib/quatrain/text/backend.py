"""Builds the `tokenizers.Tokenizer` of a folder so that it gives exactly the ids of transformers' AutoTokenizer.

AutoTokenizer does not always use tokenizer.json unchanged. Some BPE classes take only vocabulary and merges from it and
bring their own normaliser and pre-tokeniser; which class is used follows from `tokenizer_class` and the model type.
Special tokens that the configuration names are added when tokenizer.json does not list them. This module does both,
too; a test compares the tables and the ids with transformers itself.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from operator import itemgetter
from typing import Literal

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject, object_at
from quatrain.text.folder_files import TokenFields, TokenizerFiles, token_fields

_QWEN2_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


@dataclass(frozen=True)
class _Rebuild:
    """A tokenizer class that takes only vocabulary and merges from tokenizer.json.

    defaults: special tokens that it has when the configuration names none; model: fields of its BPE model; equip: sets
    normaliser, pre-tokeniser and decoder, given tokenizer_config.json.
    """

    defaults: dict[str, str]
    model: JsonObject
    equip: Callable[[Tokenizer, JsonObject], None]


def _equip_gpt2(tokenizer: Tokenizer, config: JsonObject) -> None:
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=bool(config.get("add_prefix_space")))
    tokenizer.decoder = decoders.ByteLevel()


def _equip_neox(tokenizer: Tokenizer, config: JsonObject) -> None:
    tokenizer.normalizer = normalizers.NFC()
    _equip_gpt2(tokenizer, config)


def _equip_qwen2(tokenizer: Tokenizer, config: JsonObject) -> None:
    prefix = bool(config.get("add_prefix_space"))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_QWEN2_WORDS), behavior="isolated", invert=False),
            pre_tokenizers.ByteLevel(add_prefix_space=prefix, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()


def _equip_llama(tokenizer: Tokenizer, config: JsonObject) -> None:
    prefix = config.get("add_prefix_space")
    scheme: Literal["always", "first", "never"] = "always" if config.get("legacy") else "first"
    if prefix is False:
        scheme = "never"
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=scheme, split=False)
    strip = [] if prefix is False else [decoders.Strip(content=" ", left=1)]
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), *strip]
    )


_END = "<|endoftext|>"
_BYTES: JsonObject = {"fuse_unk": False, "continuing_subword_prefix": "", "end_of_word_suffix": ""}
REBUILDS = {
    "Qwen2Tokenizer": _Rebuild(
        {"eos_token": _END, "unk_token": _END, "pad_token": _END},
        {**_BYTES, "unk_token": None, "byte_fallback": False},
        _equip_qwen2,
    ),
    "GPT2Tokenizer": _Rebuild({"bos_token": _END, "eos_token": _END, "unk_token": _END}, _BYTES, _equip_gpt2),
    "GPTNeoXTokenizer": _Rebuild(
        {"bos_token": _END, "eos_token": _END, "unk_token": _END, "pad_token": "<|padding|>"}, _BYTES, _equip_neox
    ),
    "LlamaTokenizer": _Rebuild(
        {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"},
        {"fuse_unk": True, "byte_fallback": True, "unk_token": None},
        _equip_llama,
    ),
}
MODEL_CLASSES = {
    **dict.fromkeys(("qwen2", "qwen2_moe", "qwen3", "qwen3_moe", "qwen3_next"), "Qwen2Tokenizer"),
    **dict.fromkeys(("gpt2", "gpt_neo", "gptj", "opt", "phi", "codegen", "starcoder2"), "GPT2Tokenizer"),
    **dict.fromkeys(("gpt_neox", "olmo", "olmoe", "mpt", "mamba"), "GPTNeoXTokenizer"),
}
"""Maps a model type to the class that is registered for it, for the classes that rebuild."""

GENERIC_MODELS = (
    *("mistral", "mixtral", "ministral", "ministral3", "phi3", "phimoe", "gpt_bigcode", "stablelm", "nemotron"),
    *("granite", "granitemoe", "olmo2", "olmo3", "glm", "glm4", "glm4_moe", "internlm2", "ernie4_5", "jamba"),
)
"""Model types whose registered class uses tokenizer.json unchanged, whatever `tokenizer_class` says."""

OVERRULED_MODELS = ("qwen2",)
"""Model types whose class wins over the folder's `tokenizer_class`."""


@dataclass(frozen=True)
class Backends:
    """Two views of one tokenizer.

    encoder gives AutoTokenizer's ids. decoder leaves those tokens in the text that are ordinary symbols of the
    vocabulary and only named as special by the configuration (a pad token that is a letter, say).
    """

    encoder: Tokenizer
    decoder: Tokenizer
    named_tokens: dict[str, str]


def build_backends(files: TokenizerFiles) -> Backends:
    """Build the tokenizers of a folder. Raises InvalidData when tokenizer.json cannot be read as one."""
    rebuild = _rebuild_of(files)
    defaults = {} if rebuild is None else rebuild.defaults
    named = {name: TokenFields(content=content) for name, content in defaults.items()} | files.named_tokens
    wanted = [*_config_tokens(files), *(AddedToken(**fields, special=True) for fields in named.values())]
    wanted += [AddedToken(**fields, special=True) for fields in files.extra_tokens]
    encoder, decoder = _load(files, rebuild), _load(files, rebuild)
    vocabulary = decoder.get_vocab(with_added_tokens=True)
    _add(encoder, wanted)
    _add(decoder, [token for token in wanted if token.content not in vocabulary])
    return Backends(encoder, decoder, {name: fields["content"] for name, fields in named.items()})


def _rebuild_of(files: TokenizerFiles) -> _Rebuild | None:
    if object_at(files.tokenizer, "model").get("type") != "BPE":
        return None
    model_type = str(files.model_config.get("model_type"))
    declared = files.tokenizer_config.get("tokenizer_class") or files.model_config.get("tokenizer_class")
    registered = MODEL_CLASSES.get(model_type, "")
    if model_type in GENERIC_MODELS:
        return None
    if not isinstance(declared, str) or model_type in OVERRULED_MODELS:
        return REBUILDS.get(registered)
    name = declared.removesuffix("Fast")
    parts = [files.tokenizer.get(part) for part in ("normalizer", "pre_tokenizer", "post_processor", "decoder")]
    if name == "LlamaTokenizer" and '"ByteLevel"' in json.dumps(parts):
        return None
    return REBUILDS.get(name)


def _load(files: TokenizerFiles, rebuild: _Rebuild | None) -> Tokenizer:
    content: JsonObject = {**files.tokenizer, "truncation": None, "padding": None}
    if rebuild is not None:
        content |= {"normalizer": None, "pre_tokenizer": None, "decoder": None}
        content["model"] = {**object_at(content, "model"), "dropout": None, **rebuild.model}
    try:
        tokenizer = Tokenizer.from_str(json.dumps(content, ensure_ascii=False, allow_nan=False))
    except Exception as error:  # noqa: BLE001  the binding raises bare Exception for a malformed tokenizer
        raise InvalidData(f"{files.folder / 'tokenizer.json'} is not a tokenizer: {error}.") from None
    if rebuild is not None:
        rebuild.equip(tokenizer, files.tokenizer_config)
    tokenizer.encode_special_tokens = bool(files.tokenizer_config.get("split_special_tokens"))
    return tokenizer


def _config_tokens(files: TokenizerFiles) -> list[AddedToken]:
    decoder = files.tokenizer_config.get("added_tokens_decoder") or {}
    if not isinstance(decoder, dict):
        raise InvalidData(f"{files.folder / 'tokenizer_config.json'}: added_tokens_decoder must be a mapping.")
    entries: list[tuple[int, JsonObject]] = []
    for name, value in decoder.items():
        if not (name.isdecimal() and len(name) < 10 and isinstance(value, dict)):
            raise InvalidData(f"{files.folder / 'tokenizer_config.json'}: added_tokens_decoder maps ids to mappings.")
        entries.append((int(name), value))
    entries.sort(key=itemgetter(0))
    return [AddedToken(**token_fields(value), special=bool(value.get("special"))) for _, value in entries]


def _add(tokenizer: Tokenizer, tokens: list[AddedToken]) -> None:
    """Add the tokens that are not added yet, each once, in order."""
    known = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    fresh = list({token.content: token for token in reversed(tokens) if token.content not in known}.values())
    tokenizer.add_tokens(fresh[::-1])
