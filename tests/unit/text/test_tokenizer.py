"""Tokenizer against transformers' AutoTokenizer, end-of-sequence rules, digest."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.text.folders import CHATML, bpe_tokenizer, metaspace_tokenizer, symbol_tokenizer, write_folder
from tokenizers import models
from transformers import AutoTokenizer
from transformers.models.auto.tokenization_auto import (
    MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS,
    TOKENIZER_MAPPING_NAMES,
)

from quatrain.errors import InvalidData
from quatrain.text import SIMPLE_TEMPLATE, Tokenizer
from quatrain.text.backend import GENERIC_MODELS, MODEL_CLASSES, OVERRULED_MODELS

TEXTS = [
    "",
    " ",
    "Hello, where is my parcel?",
    "it's 12345 mugs,  two   spaces\n\n\nand\ttabs \n ",
    "cafe\u0301 naïve Å \u212b ﬁ",
    "日本語 😀 \u200b zero",
    "<|im_start|>user\nhi<|im_end|>\n<|endoftext|> tail",
    "aab bca <pad> <extra>",
    "\x00\x01 control",
]
ENDS = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
MESSAGES = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": "  Where is <b>it</b>?\n"},
    {"role": "assistant", "content": "Here: {{ 1 + 1 }}"},
    {"role": "user", "content": "Thanks"},
]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any] | None]] = {
    "plain": ({"tokenizer_class": "PreTrainedTokenizerFast", **ENDS}, {"model_type": "llama"}),
    "backend": ({"tokenizer_class": "TokenizersBackend", **ENDS}, {"model_type": "qwen3"}),
    "qwen2 overrules": ({"tokenizer_class": "PreTrainedTokenizerFast", **ENDS}, {"model_type": "qwen2"}),
    "qwen2 declared": ({"tokenizer_class": "Qwen2Tokenizer", **ENDS}, {"model_type": "qwen2"}),
    "qwen2 fast": ({"tokenizer_class": "Qwen2TokenizerFast", **ENDS}, {"model_type": "llama"}),
    "qwen2 undeclared": (ENDS, {"model_type": "qwen3"}),
    "gpt2": ({"tokenizer_class": "GPT2Tokenizer", **ENDS}, {"model_type": "gpt2"}),
    "gpt2 prefix": ({"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, **ENDS}, {"model_type": "gpt2"}),
    "neox": ({"tokenizer_class": "GPTNeoXTokenizer", **ENDS}, {"model_type": "gpt_neox"}),
    "byte-level llama": ({"tokenizer_class": "LlamaTokenizer", **ENDS}, {"model_type": "llama"}),
    "generic model": (
        {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, **ENDS},
        {"model_type": "granite"},
    ),
    "new pad": ({"tokenizer_class": "TokenizersBackend", **ENDS, "pad_token": "<pad>"}, {"model_type": "llama"}),
    "ordinary pad": ({"tokenizer_class": "TokenizersBackend", **ENDS, "pad_token": "a"}, {"model_type": "llama"}),
    "extra": (
        {"tokenizer_class": "TokenizersBackend", **ENDS, "extra_special_tokens": ["<extra>", "<pad>"]},
        {"model_type": "llama"},
    ),
    "added decoder": (
        {
            "tokenizer_class": "TokenizersBackend",
            **ENDS,
            "added_tokens_decoder": {"420": {"content": "<extra>", "lstrip": True, "special": False}},
        },
        {"model_type": "llama"},
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_ids_are_those_of_auto_tokenizer(case: str, tmp_path: Path) -> None:
    tokenizer_config, config = CASES[case]
    folder = write_folder(tmp_path, bpe_tokenizer(), tokenizer_config, config)
    theirs = AutoTokenizer.from_pretrained(folder)

    ours = Tokenizer.load(folder)

    assert [ours.encode(text) for text in TEXTS] == [
        theirs(text, add_special_tokens=False)["input_ids"] for text in TEXTS
    ]
    assert ours.vocab_size == len(theirs)


@pytest.mark.parametrize("model_type", ["llama", "mistral"])
@pytest.mark.parametrize("extra", [{}, {"legacy": True}, {"add_prefix_space": False}])
def test_sentencepiece_ids_are_those_of_auto_tokenizer(model_type: str, extra: dict[str, Any], tmp_path: Path) -> None:
    config = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>", "unk_token": "<unk>", **extra}
    folder = write_folder(tmp_path, metaspace_tokenizer(), config, {"model_type": model_type})
    theirs = AutoTokenizer.from_pretrained(folder)

    ours = Tokenizer.load(folder)

    texts = [*TEXTS, "Hello</s> where </s>is"]
    assert [ours.encode(text) for text in texts] == [
        theirs(text, add_special_tokens=False)["input_ids"] for text in texts
    ]


def test_the_table_of_classes_is_that_of_transformers() -> None:
    assert {name: TOKENIZER_MAPPING_NAMES[name] for name in MODEL_CLASSES} == MODEL_CLASSES
    assert {TOKENIZER_MAPPING_NAMES[name] for name in GENERIC_MODELS} == {"TokenizersBackend"}
    assert set(OVERRULED_MODELS) == MODELS_WITH_INCORRECT_HUB_TOKENIZER_CLASS & set(MODEL_CLASSES)


def test_word_level_ids_are_those_of_auto_tokenizer(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, symbol_tokenizer(), {"eos_token": "f", "pad_token": "a"}, {"model_type": "llama"})
    theirs = AutoTokenizer.from_pretrained(folder)

    ours = Tokenizer.load(folder)

    assert ours.encode("abcfedcba") == theirs("abcfedcba", add_special_tokens=False)["input_ids"]


def test_text_without_a_token_is_invalid_data(tmp_path: Path) -> None:
    backend = symbol_tokenizer()
    backend.model = models.WordLevel({"a": 0, "b": 1}, unk_token="<unknown>")
    tokenizer = Tokenizer.load(write_folder(tmp_path, backend, {"eos_token": "b"}, {"model_type": "llama"}))

    with pytest.raises(InvalidData, match="no token for a part of 'abc'"):
        tokenizer.encode_prompt("abc")


def test_decode_leaves_special_tokens_out_and_keeps_an_ordinary_pad_symbol(tmp_path: Path) -> None:
    config = {"tokenizer_class": "TokenizersBackend", **ENDS, "pad_token": "a"}
    tokenizer = Tokenizer.load(write_folder(tmp_path, bpe_tokenizer(), config, {"model_type": "llama"}))

    text = tokenizer.decode(tokenizer.encode("a parcel at last<|im_end|>"))

    assert text == "a parcel at last"


def test_padding_and_truncation_of_the_file_are_not_applied(tmp_path: Path) -> None:
    backend = bpe_tokenizer()
    backend.enable_truncation(max_length=3)
    backend.enable_padding(length=50)

    tokenizer = Tokenizer.load(write_folder(tmp_path, backend, ENDS))

    assert len(tokenizer.encode("Hello, where is my parcel?")) not in (3, 50)


TEMPLATES = {
    "chatml": CHATML,
    "bos and trim": (
        "{{ bos_token }}{%- for m in messages -%}\n    {%- if loop.first and m.role == 'system' -%}"
        "[{{ m.content | trim }}]\n{%- continue %}{%- endif %}\n  <{{ m.role }}>{{ m.content | tojson }}\n"
        "{%- endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
    ),
    "generation block": (
        "{% for m in messages %}{% if m.role == 'assistant' %}{% generation %}{{ m.content }}{% endgeneration %}"
        "{% else %}{{ m.content }}{% endif %}{% endfor %}"
    ),
    "namespace": (
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{{ ns.n }}{{ m['content'] }}"
        "{% endfor %}{{ tools is none }}{{ documents is none }}"
    ),
}


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize("in_file", [False, True])
def test_templates_render_as_in_transformers(name: str, generation_prompt: bool, in_file: bool, tmp_path: Path) -> None:
    config: dict[str, Any] = {"tokenizer_class": "TokenizersBackend", "bos_token": "<|im_start|>", **ENDS}
    if not in_file:
        config["chat_template"] = TEMPLATES[name]
    folder = write_folder(tmp_path, bpe_tokenizer(), config, {"model_type": "llama"})
    if in_file:
        (folder / "chat_template.jinja").write_text(TEMPLATES[name], encoding="utf-8")
    theirs = AutoTokenizer.from_pretrained(folder)

    ours = Tokenizer.load(folder)

    expected = theirs.apply_chat_template(MESSAGES, add_generation_prompt=generation_prompt, tokenize=False)
    assert ours.render(MESSAGES, generation_prompt) == expected
    if generation_prompt:
        ids = theirs.apply_chat_template(MESSAGES, add_generation_prompt=True, return_dict=False)
        assert ours.encode_prompt(MESSAGES) == ids


def test_without_a_template_turns_are_written_as_in_hh_rlhf(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(write_folder(tmp_path, bpe_tokenizer(), ENDS))

    text = tokenizer.render([{"role": "user", "content": "Hi"}], add_generation_prompt=True)

    assert text == "\n\nHuman: Hi\n\nAssistant:"
    assert tokenizer.template == SIMPLE_TEMPLATE


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.content }",
        "{{ raise_exception('roles must alternate') }}",
        "{{ messages[9].content.x }}",
        "{{ messages.append(1) }}",
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{% for i in range(100000000) %}x{% endfor %}",
    ],
)
def test_a_bad_or_hostile_template_is_invalid_data(template: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bpe_tokenizer(), {**ENDS, "chat_template": template})

    with pytest.raises(InvalidData, match="chat template"):
        Tokenizer.load(folder).render(MESSAGES, add_generation_prompt=True)


def test_the_day_in_a_template_is_fixed(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bpe_tokenizer(), {**ENDS, "chat_template": "{{ strftime_now('%d %b %Y') }}"})

    assert Tokenizer.load(folder).render(MESSAGES, add_generation_prompt=True) == "26 Jul 2024"


def test_ends_come_from_generation_config_then_config_then_tokenizer_config(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bpe_tokenizer(), ENDS, {"model_type": "llama"})
    from_tokenizer = Tokenizer.load(folder)
    write_folder(folder, bpe_tokenizer(), config={"model_type": "llama", "eos_token_id": 5})
    from_config = Tokenizer.load(folder)
    write_folder(folder, bpe_tokenizer(), generation_config={"eos_token_id": [2, 1]})
    from_generation = Tokenizer.load(folder)

    assert (from_tokenizer.eos_token_ids, from_tokenizer.eos_token_id) == ((1,), 1)
    assert (from_config.eos_token_ids, from_config.eos_token_id) == ((5,), 5)
    assert (from_generation.eos_token_ids, from_generation.eos_token_id) == ((2, 1), 1)


@pytest.mark.parametrize(
    ("generation_config", "match"),
    [({}, "no end-of-sequence token"), ({"eos_token_id": "x"}, "whole numbers"), ({"eos_token_id": 999}, "999")],
)
def test_a_tokenizer_without_a_usable_end_is_invalid(
    generation_config: dict[str, Any], match: str, tmp_path: Path
) -> None:
    folder = write_folder(tmp_path, bpe_tokenizer(), {"pad_token": "a"}, generation_config=generation_config)

    with pytest.raises(InvalidData, match=match):
        Tokenizer.load(folder)


def test_a_broken_folder_is_invalid(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{", encoding="utf-8")
    with pytest.raises(InvalidData, match=r"tokenizer\.json is not valid JSON"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}', encoding="utf-8")
    with pytest.raises(InvalidData, match=r"tokenizer\.json is not a tokenizer"):
        Tokenizer.load(tmp_path)


def test_remote_code_in_the_tokenizer_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, bpe_tokenizer(), {**ENDS, "auto_map": {"AutoTokenizer": ["x.Y", None]}})

    with pytest.raises(InvalidData, match="remote code"):
        Tokenizer.load(folder)


def test_the_digest_follows_content_and_not_the_folder(tmp_path: Path) -> None:
    first = Tokenizer.load(write_folder(tmp_path / "a", bpe_tokenizer(), ENDS))
    same = Tokenizer.load(write_folder(tmp_path / "b", bpe_tokenizer(), ENDS, generation_config={"eos_token_id": 2}))
    other = Tokenizer.load(write_folder(tmp_path / "c", bpe_tokenizer(), {**ENDS, "chat_template": CHATML}))

    assert first.digest == same.digest != other.digest
