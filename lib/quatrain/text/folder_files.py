"""The JSON and text files of a tokenizer folder, read once and checked for shape."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Required, TypedDict, get_args

from quatrain.errors import InvalidData
from quatrain.json_values import JsonObject, JsonValue

NAMED_TOKENS = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The special tokens that have a name of their own, in the order in which transformers registers them."""
_Flag = Literal["single_word", "lstrip", "rstrip", "normalized"]
_FLAGS: tuple[_Flag, ...] = get_args(_Flag)


class TokenFields(TypedDict, total=False):
    """Arguments of an AddedToken, as far as the files give them; what they leave out keeps AddedToken's default."""

    content: Required[str]
    single_word: bool
    lstrip: bool
    rstrip: bool
    normalized: bool


@dataclass(frozen=True)
class TokenizerFiles:
    """The content of a folder; absent files are empty dicts or None.

    named_tokens: name to fields, for the named special tokens that are given.
    """

    folder: Path
    tokenizer: JsonObject
    tokenizer_config: JsonObject
    model_config: JsonObject
    generation_config: JsonObject
    named_tokens: dict[str, TokenFields]
    extra_tokens: tuple[TokenFields, ...]
    template: str | None


def read_files(folder: Path) -> TokenizerFiles:
    """Read a folder. Raises InvalidData naming the file that is missing, unreadable or of the wrong shape."""
    if not (folder / "tokenizer.json").is_file():
        raise InvalidData(
            f"The model folder {folder} has no tokenizer.json. Save the tokenizer beside the model "
            "(AutoTokenizer.from_pretrained(...).save_pretrained(folder))."
        )
    tokenizer_config = read_json(folder / "tokenizer_config.json")
    if tokenizer_config.get("auto_map"):
        raise InvalidData(
            f"{folder / 'tokenizer_config.json'} asks for remote code (auto_map), which is never run. "
            "Use a tokenizer that tokenizer.json describes in full and remove auto_map."
        )
    specials = {} if "added_tokens_decoder" in tokenizer_config else read_json(folder / "special_tokens_map.json")
    merged = {**tokenizer_config, **specials}
    named = {name: token_fields(merged[name]) for name in NAMED_TOKENS if merged.get(name)}
    return TokenizerFiles(
        folder=folder,
        tokenizer=read_json(folder / "tokenizer.json"),
        tokenizer_config=tokenizer_config,
        model_config=read_json(folder / "config.json"),
        generation_config=read_json(folder / "generation_config.json"),
        named_tokens=named,
        extra_tokens=_extra_tokens(merged),
        template=_template(folder, tokenizer_config),
    )


def read_json(path: Path) -> JsonObject:
    """Return the JSON object in a file; empty when there is no such file. Raises InvalidData."""
    if not path.is_file():
        return {}
    try:
        value: JsonValue = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise InvalidData(f"{path} is not valid JSON: {error}.") from None
    if not isinstance(value, dict):
        raise InvalidData(f"{path} must hold a JSON object, not a {type(value).__name__}.")
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise InvalidData(f"{path} holds half a surrogate pair, which is no character.") from None
    return value


def token_fields(value: JsonValue) -> TokenFields:
    """Return the fields of a token that the files write as a string or as a mapping with `content`."""
    content = value.get("content") if isinstance(value, dict) else value
    if not isinstance(content, str):
        raise InvalidData(f"A special token must be a string or a mapping with content, not {value!r:.80}.")
    fields = TokenFields(content=content)
    if isinstance(value, dict):
        for flag in _FLAGS:
            if flag in value:
                fields[flag] = bool(value[flag])
    return fields


def _extra_tokens(config: JsonObject) -> tuple[TokenFields, ...]:
    extra = config.get("extra_special_tokens") or config.get("additional_special_tokens") or []
    if isinstance(extra, dict):
        extra = list(extra.values())
    if not isinstance(extra, list | str):
        raise InvalidData(f"The extra special tokens must be a list or a mapping, not {extra!r:.80}.")
    own_names = [value for key, value in config.items() if key.endswith("_token") and key not in NAMED_TOKENS]
    texts = [value for value in own_names if isinstance(value, str)]
    return tuple(token_fields(value) for value in (*texts, *extra))


def _template(folder: Path, tokenizer_config: JsonObject) -> str | None:
    path = folder / "chat_template.jinja"
    if path.is_file():
        try:
            return path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            raise InvalidData(f"{path} is not UTF-8 text.") from None
    template = tokenizer_config.get("chat_template")
    if isinstance(template, list):
        named = [entry for entry in template if isinstance(entry, dict) and entry.get("name") == "default"]
        template = named[-1].get("template") if named else None
    elif isinstance(template, dict):
        template = template.get("default")
    return template if isinstance(template, str) else None
