"""Prepared tables: ids, limits, deterministic bytes; reports with a tokenizer."""

import json
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.unit.data.scratch import prepare_pairs, prepare_prompts, prepare_sft
from tests.unit.text.folders import CHATML, bpe_tokenizer, write_folder

from quatrain.data import (
    Description,
    PairRecord,
    PromptRecord,
    Record,
    Report,
    SftRecord,
    read_pairs,
    read_prompts,
    read_sft,
)
from quatrain.errors import Corrupt, InvalidData
from quatrain.text import Tokenizer

USER = [{"role": "user", "content": "Hello, where is my parcel?"}]
SFT = [
    SftRecord("Hello,", " sorry!", 1),
    SftRecord(USER, "Your refund will arrive.", 2),
    SftRecord("a", "a very long answer that does not fit into the room that there is " * 3, 3),
    SftRecord("a prompt that alone is too long " * 9, "x", 4),
]
EMPTY = Report(format="x", rows=0, kept=0, dropped=(), columns=(), duplicates=0)


def describe(
    report: Report,
    records: Sequence[Record],
    tokenizer: Tokenizer | None = None,
    *,
    max_length: int | None = None,
    held_out: Sequence[PromptRecord] | None = None,
) -> Report:
    description = Description(tokenizer, max_length=max_length, held_out=held_out)
    for record in records:
        description.see(record)
    return description.add_to(report)


@pytest.fixture
def plain(tmp_path: Path) -> Tokenizer:
    return Tokenizer.load(write_folder(tmp_path / "plain", bpe_tokenizer(), {"eos_token": "<|endoftext|>"}))


@pytest.fixture
def chat(tmp_path: Path) -> Tokenizer:
    config = {"eos_token": "<|im_end|>", "chat_template": CHATML}
    return Tokenizer.load(write_folder(tmp_path / "chat", bpe_tokenizer(), config))


def test_sft_rows_end_with_eos_unless_they_are_cut(plain: Tokenizer) -> None:
    prepared = prepare_sft(SFT, plain, max_length=64)

    table = read_sft(prepared.data)

    assert (prepared.rows, table.line) == (3, [1, 2, 3])
    assert table.prompt_ids[0].tolist() == plain.encode("Hello,")
    assert table.completion_ids[0].tolist() == [*plain.encode(" sorry!"), plain.eos_token_id]
    assert table.completion_ids[0].dtype == np.int32
    assert len(table.prompt_ids[2]) + len(table.completion_ids[2]) == 64
    assert plain.eos_token_id not in table.completion_ids[2]
    assert prepared.notes[0] == "1 rows are cut to the longest length"
    assert "line 4: the prompt has" in prepared.notes[1]


def test_a_chat_completion_is_what_the_template_writes_up_to_the_end_token(chat: Tokenizer) -> None:
    ids = chat.encode_completion(USER, "Here it is.")

    assert ids == chat.encode("Here it is.<|im_end|>")
    whole = chat.render([*USER, {"role": "assistant", "content": "Here it is."}], add_generation_prompt=False)
    assert chat.render(USER, add_generation_prompt=True) + "Here it is.<|im_end|>\n" == whole


def test_the_simple_template_gives_hh_rlhf_turns(plain: Tokenizer) -> None:
    assert plain.encode_completion(USER, "Here.") == [*plain.encode(" Here."), plain.eos_token_id]


def test_a_template_that_does_not_continue_its_prompt_gives_the_bare_text(tmp_path: Path) -> None:
    template = "{% for m in messages %}[{{ m.content }}]{% endfor %}{% if add_generation_prompt %}think:{% endif %}"
    config = {"eos_token": "<|im_end|>", "chat_template": template}
    tokenizer = Tokenizer.load(write_folder(tmp_path, bpe_tokenizer(), config))

    assert tokenizer.encode_completion(USER, "Here.") == [*tokenizer.encode("Here."), tokenizer.eos_token_id]


def test_an_end_that_the_text_brings_is_not_doubled(plain: Tokenizer) -> None:
    assert plain.encode_completion("a", " b<|endoftext|>") == plain.encode(" b<|endoftext|>")


def test_pairs_share_their_prompt(plain: Tokenizer) -> None:
    long = "x " * 200
    records = [
        PairRecord("Hello,", " good", " bad", 0.5, 3),
        PairRecord("Hello,", " good", " " + long, None, 4),
        PairRecord("Hello,", long + "a", long + "b", None, 5),
        PairRecord(long, "a", "b", None, 6),
    ]

    prepared = prepare_pairs(records, plain, max_length=64)

    table = read_pairs(prepared.data)
    prompt = plain.encode("Hello,")
    assert table.prompt_length == [len(prompt)] * 2
    assert table.margin == [0.5, None]
    assert table.chosen_ids[0].tolist() == [*prompt, *plain.encode(" good"), plain.eos_token_id]
    assert table.rejected_ids[0].tolist() == [*prompt, *plain.encode(" bad"), plain.eos_token_id]
    assert len(table.rejected_ids[1]) == 64
    assert table.line == [3, 4]


def test_prompts_keep_their_text_and_columns(chat: Tokenizer) -> None:
    records = [PromptRecord("Hello", {"z": 1, "a": "ü"}, 1), PromptRecord(USER, {}, 2)]

    table = read_prompts(prepare_prompts(records, chat, 64).data)

    assert table.prompt_ids[0].tolist() == chat.encode("Hello")
    assert table.prompt_ids[1].tolist() == chat.encode_prompt(USER)
    assert [json.loads(text) for text in table.prompt_json] == ["Hello", USER]
    assert table.extra_json == ['{"z":1,"a":"ü"}', "{}"]


def test_long_prompts_are_refused_or_cut_at_the_left(plain: Tokenizer) -> None:
    records = [PromptRecord("Hello", {}, 1), PromptRecord("Where is my parcel?", {}, 7)]
    length = len(plain.encode("Where is my parcel?"))

    with pytest.raises(InvalidData, match=rf"1 of 2 prompts .* 1 tokens \(line 7: {length}\).*truncate_prompt"):
        prepare_prompts(records[1:] + records[:1], plain, len(plain.encode("Hello")))
    cut = read_prompts(prepare_prompts(records, plain, 3, "left").data)

    assert cut.prompt_ids[1].tolist() == plain.encode("Where is my parcel?")[-3:]


def test_a_conversation_that_the_template_refuses_is_left_out(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}{{ messages[0].content }}"
    )
    tokenizer = Tokenizer.load(
        write_folder(tmp_path, bpe_tokenizer(), {"eos_token": "<|im_end|>", "chat_template": template})
    )
    system = [{"role": "system", "content": "x"}]

    prepared = prepare_prompts([PromptRecord(system, {}, 1), PromptRecord(USER, {}, 2)], tokenizer, 64)

    assert prepared.rows == 1
    assert "no system" in prepared.notes[0]
    with pytest.raises(InvalidData, match="None of the 1 rows"):
        prepare_prompts([PromptRecord(system, {}, 1)], tokenizer, 64)


def test_equal_rows_give_equal_bytes_and_other_rows_do_not(plain: Tokenizer) -> None:
    pairs = [PairRecord("p", f" a{i}", f" b{i}", float(i), i) for i in range(50)]

    assert prepare_sft(SFT, plain, 64).data == prepare_sft(SFT, plain, 64).data
    assert prepare_pairs(pairs, plain, 64).data == prepare_pairs(list(pairs), plain, 64).data
    assert prepare_pairs(pairs, plain, 64).data != prepare_pairs(pairs[::-1], plain, 64).data


def test_bytes_that_are_no_table_are_corrupt(plain: Tokenizer) -> None:
    sft = prepare_sft(SFT, plain, 64).data

    for data in (b"", b"PAR1", sft[:-20], sft[:200] + b"\0" * 40 + sft[240:]):
        with pytest.raises(Corrupt):
            read_sft(data)
    with pytest.raises(Corrupt, match="columns"):
        read_pairs(sft)


def test_a_description_has_lengths_examples_and_overlap(chat: Tokenizer) -> None:
    records = [PromptRecord("Hello", {"k": 1}, 1), PromptRecord(USER, {}, 2), PromptRecord("Hello", {}, 3)]

    report = describe(EMPTY, records, chat, max_length=3, held_out=[PromptRecord("Hello", {}, 9)])

    assert report.lengths is not None
    assert report.lengths["prompt"]["max"] == len(chat.encode_prompt(USER))
    assert report.lengths["prompt"]["p50"] == len(chat.encode("Hello"))
    assert report.truncated_share == pytest.approx(1 / 3)
    assert report.overlap == 2
    assert report.examples[0] == {"line": 1, "prompt": "Hello", "extra": {"k": 1}}
    assert str(report.examples[1]["prompt"]).startswith("<|im_start|>user\n")
    assert any("held-out" in warning for warning in report.warnings)
    assert json.loads(json.dumps(report.to_json()))["overlap"] == 2


def test_a_description_of_pairs_and_sft(plain: Tokenizer) -> None:
    pairs = describe(EMPTY, [PairRecord("p", " a", " b", None, 1)], plain, max_length=512)
    sft = describe(EMPTY, SFT[:1], plain)
    bare = describe(EMPTY, SFT[:1])

    assert pairs.lengths is not None
    assert set(pairs.lengths) == {"prompt", "chosen", "rejected"}
    assert pairs.truncated_share == 0.0
    assert sft.examples == ({"line": 1, "prompt": "Hello,", "completion": " sorry!"},)
    assert (bare.lengths, bare.truncated_share, bare.overlap) == (None, None, None)


class WideIds(Tokenizer):
    """One token for each letter, with ids that Python makes anew for each token."""

    def __init__(self) -> None:
        self.eos_token_ids = (0,)
        self.eos_token_id = 0

    def encode(self, text: str) -> list[int]:
        return [100_000 + ord(letter) for letter in text]


def test_a_prepared_token_takes_a_few_bytes() -> None:
    records = [SftRecord("p" * 200, "c" * 800, line) for line in range(60)]
    tracemalloc.start()
    prepared = prepare_sft(records, WideIds(), 2000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()

    assert prepared.rows == 60
    assert peak < 10 * 60 * 1001
