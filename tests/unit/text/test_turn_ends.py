"""The token that a chat template writes after an answer ends completions, whatever the files call an end."""

from pathlib import Path
from typing import Any

import pytest
from tests.unit.text.folders import bpe_tokenizer, write_folder

from quatrain.errors import InvalidData
from quatrain.text import Tokenizer

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHAT = [{"role": "user", "content": "Where is it?"}]


def load(folder: Path, template: str | None, **generation: Any) -> Tokenizer:
    config: dict[str, Any] = {"eos_token": "<|endoftext|>"} | ({} if template is None else {"chat_template": template})
    return Tokenizer.load(write_folder(folder, bpe_tokenizer(), config, {"model_type": "llama"}, generation))


def test_an_answer_ends_with_the_end_of_its_turn(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, CHATML)
    (end,), (turn,) = (tokenizer.encode(text) for text in ("<|endoftext|>", "<|im_end|>"))

    assert (tokenizer.turn_end, tokenizer.eos_token_ids, tokenizer.eos_token_id) == ("<|im_end|>", (end, turn), end)
    assert tokenizer.encode_completion(CHAT, "Here.") == [*tokenizer.encode("Here."), turn]
    assert tokenizer.encode_completion("Where is it?", " Here.") == [*tokenizer.encode(" Here."), end]


def test_an_end_that_a_file_names_is_not_news(tmp_path: Path) -> None:
    plain = load(tmp_path / "plain", None)
    (end,), (turn,) = (plain.encode(text) for text in ("<|endoftext|>", "<|im_end|>"))

    named = load(tmp_path / "named", CHATML, eos_token_id=[end, turn])

    assert (named.turn_end, named.eos_token_ids) == (None, (end, turn))
    assert (plain.turn_end, plain.eos_token_ids) == (None, (end,))


def test_nothing_is_learnt_beyond_the_first_end(tmp_path: Path) -> None:
    tokenizer = load(tmp_path, CHATML.replace("<|im_end|>\n", "<|im_end|>\n<|endoftext|>"))
    (turn,) = tokenizer.encode("<|im_end|>")

    assert tokenizer.encode_completion(CHAT, "Here.") == [*tokenizer.encode("Here."), turn]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{{ m.role + ': ' + m.content + '\n' }}{% endfor %}",
        "{% if messages | length > 1 %}{{ raise_exception('one turn only') }}{% endif %}{{ messages[0].content }}",
    ],
)
def test_a_template_without_a_token_after_answers_adds_no_end(template: str, tmp_path: Path) -> None:
    assert load(tmp_path, template).turn_end is None


def test_a_template_that_loses_the_text_is_refused_for_messages_only(tmp_path: Path) -> None:
    parts = (
        "{% for m in messages %}<|im_start|>{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}"
        "{% endfor %}<|im_end|>{% endfor %}"
    )
    tokenizer = load(tmp_path, parts)

    with pytest.raises(InvalidData, match="leaves out the text of messages"):
        tokenizer.encode_prompt(CHAT)
    assert tokenizer.encode_prompt("Where is it?") == tokenizer.encode("Where is it?")


def test_a_template_that_wants_a_system_turn_first_is_not_judged(tmp_path: Path) -> None:
    strict = (
        "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}"
        "{% for m in messages %}{{ m.content + '<|im_end|>' }}{% endfor %}"
    )
    tokenizer = load(tmp_path, strict)

    ids = tokenizer.encode_prompt([{"role": "system", "content": "Be kind."}, *CHAT])

    assert ids == tokenizer.encode("Be kind.<|im_end|>Where is it?<|im_end|>")
