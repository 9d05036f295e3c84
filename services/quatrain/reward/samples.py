"""The samples that are scored: how they are read and checked, and why some are refused before anything scores them."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from quatrain.digests import parse_json
from quatrain.json_values import JsonObject, JsonValue, object_at
from quatrain.refs import ModelRef
from quatrain.text import Tokenizer
from quatrain.text.folder_files import read_json

FinishReason = Literal["stop", "length"]
Prompt = str | list[JsonObject]
"""A text, or the messages of a conversation."""


@dataclass(frozen=True)
class RawSample:
    """A sample as it was received, unchecked. `finish_reason` is None if it was not sent."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    prompt_json: str
    finish_reason: FinishReason | None
    extra_json: str = ""


@dataclass(frozen=True)
class Sample:
    """A checked sample. `completion` is the text of its ids without special tokens; the ids include EOS."""

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    prompt: Prompt
    completion: str
    finish_reason: FinishReason
    extra: Mapping[str, JsonValue] = field(default_factory=dict)


@dataclass(frozen=True)
class Batch:
    """The samples of one call that passed all checks, in order, with what backends need to know about the call.

    `timeout` bounds one call of a reward function or of another reward service, in seconds.
    """

    job: str
    samples: tuple[Sample, ...]
    tokenizer: Tokenizer
    tokenizer_ref: ModelRef
    trainer_state: Mapping[str, JsonValue] = field(default_factory=dict)
    timeout: float = 60.0


class Malformed(Exception):
    """The sample cannot be scored; the message is the reason that it is refused with."""


@dataclass(frozen=True)
class PolicyTokenizer:
    """The policy's tokenizer, and how many ids the policy knows: its embedding may have more rows than tokens."""

    tokenizer: Tokenizer
    vocab_size: int

    @classmethod
    def load(cls, folder: Path) -> "PolicyTokenizer":
        """Read a tokenizer folder, with the model's config.json or without. Raises InvalidData."""
        tokenizer = Tokenizer.load(folder)
        config = read_json(folder / "config.json")
        sizes = [section.get("vocab_size") for section in (config, object_at(config, "text_config"))]
        return cls(tokenizer, max([tokenizer.vocab_size, *(size for size in sizes if isinstance(size, int))]))


def read_sample(raw: RawSample, policy: PolicyTokenizer) -> Sample:
    """Check a sample and turn its completion into text. Raises Malformed."""
    if not raw.completion_ids:
        raise Malformed("the completion is empty")
    if raw.finish_reason is None:
        raise Malformed("the finish reason is missing")
    check_ids("prompt", raw.prompt_ids, policy.vocab_size)
    check_ids("completion", raw.completion_ids, policy.vocab_size)
    return Sample(
        prompt_ids=raw.prompt_ids,
        completion_ids=raw.completion_ids,
        prompt=_read_prompt(raw.prompt_json),
        completion=policy.tokenizer.decode(raw.completion_ids),
        finish_reason=raw.finish_reason,
        extra=_read_extra(raw.extra_json),
    )


def check_ids(what: str, ids: Sequence[int], vocab_size: int) -> None:
    """Raise Malformed for the first token id outside 0 .. vocab_size-1."""
    for position, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            raise Malformed(f"{what} token {token} at position {position} is outside the vocabulary of {vocab_size}")


def _read_prompt(text: str) -> Prompt:
    prompt = _read_json("prompt_json", text)
    try:
        json.dumps(prompt, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise Malformed("prompt_json has half a surrogate pair, which is no text") from error
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, list) and prompt and all(isinstance(item, dict) and "role" in item for item in prompt):
        return prompt
    raise Malformed("prompt_json is neither a string nor a list of messages with a role")


def _read_extra(text: str) -> JsonObject:
    extra = _read_json("extra_json", text) if text else {}
    if not isinstance(extra, dict):
        raise Malformed("extra_json is not an object")
    return extra


def _read_json(what: str, text: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise Malformed(f"{what} is not JSON: {error}") from error
