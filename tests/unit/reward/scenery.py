"""Small tokenizers, reward models and samples that the tests of the reward service share."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer as RustTokenizer
from tokenizers.decoders import Fuse
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Split
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from quatrain.refs import ModelRef
from quatrain.reward.samples import Batch, PolicyTokenizer, Sample

LETTERS = ["a", "b", "c", "d", " ", "<eos>"]
EOS = 5


def make_tokenizer(folder: Path, tokens: Sequence[str] = LETTERS) -> Path:
    """A tokenizer with one token a character; `<eos>` is special, and there is no pad token."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = RustTokenizer(WordLevel(vocabulary, unk_token=tokens[0]))
    tokenizer.pre_tokenizer = Split("", "isolated")
    tokenizer.decoder = Fuse()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<eos>", "tokenizer_class": "PreTrainedTokenizerFast"}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def make_reward_model(
    folder: Path, *, tokens: Sequence[str] = LETTERS, seed: int = 0, offset: float | None = None, width: int = 16
) -> Path:
    """A random reward model whose pad id is an ordinary symbol."""
    torch.manual_seed(seed)
    config = Qwen2Config(
        vocab_size=len(tokens),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=32,
        pad_token_id=0,
        eos_token_id=tokens.index("<eos>"),
    )
    config.num_labels = 1
    classifier: Any = Qwen2ForSequenceClassification
    model = classifier(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(folder)
    make_tokenizer(folder, tokens)
    if offset is not None:
        (folder / "quatrain.json").write_text(json.dumps({"offset": offset}))
    return folder


def ids_of(text: str) -> tuple[int, ...]:
    """Ids of a text of letters; `$` stands for the end of sequence."""
    return tuple(EOS if letter == "$" else LETTERS.index(letter) for letter in text)


def sample(prompt: Any = "ab", completion: str = "cd$", **extra: Any) -> Sample:
    """A sound sample; a completion that ends with `$` has stopped."""
    text = prompt if isinstance(prompt, str) else "".join(message["content"] for message in prompt)
    return Sample(
        prompt_ids=ids_of(text),
        completion_ids=ids_of(completion),
        prompt=prompt,
        completion=completion.removesuffix("$"),
        finish_reason="stop" if completion.endswith("$") else "length",
        extra=extra,
    )


def batch(folder: Path, *samples: Sample, timeout: float = 20.0, **trainer_state: Any) -> Batch:
    """Samples of one call, with the tokenizer in `folder`."""
    return Batch(
        job="job",
        samples=samples,
        tokenizer=PolicyTokenizer.load(folder).tokenizer,
        tokenizer_ref=ModelRef(folder.as_uri(), ""),
        trainer_state=trainer_state,
        timeout=timeout,
    )
