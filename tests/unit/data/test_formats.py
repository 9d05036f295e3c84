"""The shapes of public data sets become the right records; what is not used or would be guessed is said."""

import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.data.formats import ARENA, BETTER, CHAT, MESSAGES, PAIRS, QUESTION, SFT, USER, WORSE, said

from quatrain.data import PairRecord, PromptRecord, SftRecord, load_pairs, load_prompts, load_sft
from quatrain.data.formats import KNOWN_SETS, kind_of_row
from quatrain.errors import InvalidData
from quatrain.jobspec import data_formats


def jsonl(tmp_path: Path, *rows: Any) -> Path:
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


@pytest.mark.parametrize(("format", "row", "prompt", "margin"), PAIRS)
def test_public_shapes_become_pairs(format: str, row: dict[str, Any], prompt: Any, margin: Any, tmp_path: Path) -> None:
    records, report = load_pairs(jsonl(tmp_path, row))

    (record,) = records
    assert (report.format, record.prompt, record.margin) == (format, prompt, margin)
    assert record.chosen.strip() == BETTER
    assert record.rejected.strip() in (WORSE, "no")
    assert kind_of_row(row) == "preferences"


@pytest.mark.parametrize(("format", "row", "prompt", "margin"), [case for case in PAIRS if case[0] in KNOWN_SETS])
def test_public_sets_can_be_named(format: str, row: dict[str, Any], prompt: Any, margin: Any, tmp_path: Path) -> None:
    records, report = load_pairs(jsonl(tmp_path, row), format=format)

    assert (report.format, records[0].prompt, records[0].chosen.strip()) == (format, prompt, BETTER)


@pytest.mark.parametrize(("format", "row", "prompt"), SFT)
def test_public_shapes_become_completions(format: str, row: dict[str, Any], prompt: Any, tmp_path: Path) -> None:
    records, report = load_sft(jsonl(tmp_path, row))

    assert (report.format, records) == (format, [SftRecord(prompt, BETTER, 1)])


def test_the_spec_names_the_same_sets() -> None:
    assert set(data_formats.KNOWN_SETS) == set(KNOWN_SETS)


def test_a_set_of_another_kind_is_refused_with_the_names(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match=r"shp is none of sft; their known sets are kto"):
        load_sft(jsonl(tmp_path, {"history": QUESTION}), format="shp")
    with pytest.raises(InvalidData, match="No row has the columns of the format shp: `history`"):
        load_pairs(jsonl(tmp_path, {"prompt": QUESTION, "chosen": "a", "rejected": "b"}), format="shp")


# Prompts that would be guessed


@pytest.mark.parametrize(
    ("chosen", "rejected", "reason"),
    [
        ("The wax is cold.", "Throw it.", "no beginning in common"),
        ("The answer is Jupiter.", "The answer is Mars.", "begin alike for most of their length"),
        ("Human: Hi Assistant: Yes", "Human: Hi Assistant: Yes, gladly", "the beginning of the other"),
        ("Human: Hi Assistant:", "Human: Hi Assistant: Yes", "the beginning of the other"),
        ("Teapot here", "Tea there", "no beginning in common"),
    ],
)
def test_no_prompt_is_guessed_from_a_few_letters(chosen: str, rejected: str, reason: str, tmp_path: Path) -> None:
    sound = {"chosen": f"Human: {QUESTION} Assistant: The lemon", "rejected": f"Human: {QUESTION} Assistant: The paint"}

    records, report = load_pairs(jsonl(tmp_path, sound, {"chosen": chosen, "rejected": rejected}))

    assert records == [PairRecord(f"Human: {QUESTION} Assistant:", " The lemon", " The paint", None, 1)]
    assert reason in report.dropped[0].reason


def test_a_text_column_left_over_is_named_as_the_prompt(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"ask": QUESTION, "id": "1", "chosen": f"The {BETTER}", "rejected": f"The {WORSE}"})

    with pytest.raises(InvalidData, match=r"columns: \{prompt: ask\}"):
        load_pairs(path)
    assert load_pairs(path, columns={"prompt": "ask"})[0][0].prompt == QUESTION


def test_a_prompt_beside_other_conversations_is_counted(tmp_path: Path) -> None:
    records, report = load_pairs(jsonl(tmp_path, {"prompt": "Else?", **CHAT}, {"prompt": f" {QUESTION}\n", **CHAT}))

    assert [record.prompt for record in records] == [MESSAGES, MESSAGES]
    assert any(warning.startswith("1 rows have a prompt that is not the question") for warning in report.warnings)


# Labels


@pytest.mark.parametrize(
    ("labels", "rule", "first_chosen"),
    [
        ([0, 1, 0], None, [True, False, True]),
        ([1, 2, 2], None, [True, False, False]),
        ([-1, 1, -2], None, [True, False, True]),
        (["a", "B", "A"], None, [True, False, True]),
        (["m-1", "m-2", "m-1"], None, [True, False, True]),
        ([1, 0, 1], "a-if-true", [True, False, True]),
        ([True, False, True], "a-if-true", [True, False, True]),
        (["true", "False", "TRUE"], "a-if-true", [True, False, True]),
        ([-1, 1, -2], "positive-is-a", [False, True, False]),
    ],
)
def test_rules_of_labels(labels: list[Any], rule: str | None, first_chosen: list[bool], tmp_path: Path) -> None:
    rows = [{**ARENA, "q": "p", "one": "first", "two": "second", "verdict": label} for label in labels]
    columns = {"prompt": "q", "a": "one", "b": "two", "label": "verdict"}

    records, report = load_pairs(jsonl(tmp_path, *rows), columns=columns, label_rule=rule)

    assert [record.chosen == "first" for record in records] == first_chosen
    assert "made by a label" in report.warnings[0]


@pytest.mark.parametrize("label", ["tie", "tie (bothbad)", "both", "neither"])
def test_ties_are_dropped_and_counted(label: str, tmp_path: Path) -> None:
    rows = [{"prompt": "p", "a": "x", "b": "y", "label": each} for each in ("a", label, "b")]

    records, report = load_pairs(jsonl(tmp_path, *rows))

    assert [record.line for record in records] == [1, 3]
    assert report.dropped[0].line == 2
    assert any("1: a tie" in warning for warning in report.warnings)


def test_scores_may_be_better_when_lower(tmp_path: Path) -> None:
    path = jsonl(tmp_path, {"prompt": "p", "reply_a": "x", "reply_b": "y", "rank_a": 1, "rank_b": 3})

    assert load_pairs(path, label_rule="lower-score")[0] == [PairRecord("p", "x", "y", 2.0, 1)]


@pytest.mark.parametrize(
    "labels", [[True, False], ["good", "bad"], [0, 1, 2], [1, 1], ["A > B", "B > A"], ["a is worse than b", "b"]]
)
def test_labels_that_do_not_say_their_rule_are_refused(labels: list[Any], tmp_path: Path) -> None:
    rows = [{"prompt": "p", "a": "x", "b": "y", "label": label} for label in labels]

    with pytest.raises(InvalidData, match="Set `label_rule`"):
        load_pairs(jsonl(tmp_path, *rows))


def test_a_mapping_that_leaves_out_the_label_is_refused(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "one": "x", "two": "y", "winner": "one"},
        {"prompt": "p", "one": "z", "two": "y", "winner": "two"},
    ]
    path = jsonl(tmp_path, *rows)

    with pytest.raises(InvalidData, match=r"columns: \{prompt: prompt, a: one, b: two, label: winner\}"):
        load_pairs(path, columns={"chosen": "one", "rejected": "two"})
    records, _ = load_pairs(path, columns={"a": "one", "b": "two", "label": "winner"})
    assert [record.chosen for record in records] == ["x", "y"]


def test_two_answers_without_a_label_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidData, match="no column says which is better"):
        load_pairs(jsonl(tmp_path, {"prompt": "p", "response_a": "x", "response_b": "y"}))


# Rows that are joined or left out


def kto(prompt: str, completion: str, label: Any) -> dict[str, Any]:
    return {"prompt": prompt, "completion": completion, "label": label}


@pytest.mark.parametrize(("wanted", "unwanted"), [(True, False), (1, 0), ("1", "0"), ("True", "False")])
def test_unwanted_answers_are_not_learnt(wanted: Any, unwanted: Any, tmp_path: Path) -> None:
    records, report = load_sft(jsonl(tmp_path, kto("p", "good", wanted), kto("q", "bad", unwanted)))

    assert [record.completion for record in records] == ["good"]
    assert any("1 rows have the label false" in warning for warning in report.warnings)


def test_unpaired_neighbours_become_pairs(tmp_path: Path) -> None:
    rows = [kto("p", "bad", False), kto("p", "good", True), kto("q", "alone", True)]

    records, report = load_pairs(jsonl(tmp_path, *rows))

    assert records == [PairRecord("p", "good", "bad", None, 2)]
    assert [drop.line for drop in report.dropped] == [3]
    assert (report.kept, report.rows) == (1, 3)


def test_helpsteer2_joins_neighbours_with_one_prompt(tmp_path: Path) -> None:
    rows = [{"prompt": p, "response": r, "helpfulness": h} for p, r, h in (("p", "x", 1), ("p", "y", 4), ("q", "z", 2))]

    records, report = load_pairs(jsonl(tmp_path, *rows))

    assert (report.format, records) == ("helpsteer2", [PairRecord("p", "y", "x", 3.0, 1)])


@pytest.mark.parametrize(
    ("last", "reason"),
    [
        ({**said("x"), "weight": 0}, "weight 0"),
        ({**said("x"), "tool_calls": [1]}, "calls of tools"),
        ({**said("x"), "reasoning_content": "hm"}, "'reasoning_content'"),
        ({"role": "assistant", "content": [{"type": "image_url", "image_url": "u"}]}, "only text parts"),
        ({"role": "user", "content": "x"}, "must be one assistant message"),
    ],
)
def test_messages_that_are_not_learnt(last: dict[str, Any], reason: str, tmp_path: Path) -> None:
    _, report = load_sft(jsonl(tmp_path, {"messages": [USER, said("x")]}, {"messages": [USER, last]}))

    assert reason in report.dropped[0].reason


@pytest.mark.parametrize(
    ("chosen", "reason"),
    [
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: bye", "ends on a human turn"),
        ("\n\nHuman: a\n\nAssistant: ", "is empty"),
    ],
)
def test_transcripts_without_a_last_answer_are_dropped(chosen: str, reason: str, tmp_path: Path) -> None:
    sound = {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}

    _, report = load_pairs(jsonl(tmp_path, sound, {**sound, "chosen": chosen}))

    assert (report.kept, report.dropped[0].line) == (1, 2)
    assert reason in report.dropped[0].reason


def test_rows_of_another_format_are_dropped_by_its_name(tmp_path: Path) -> None:
    plain = {"prompt": "p", "chosen": "x", "rejected": "y"}

    _, report = load_pairs(jsonl(tmp_path, plain, plain | {"chosen": "z"}, CHAT))

    assert report.format == "trl-standard"
    assert "trl-conversational-implicit" in report.dropped[0].reason


# Prompts


def test_prompts_in_a_cell_of_json_are_turns(tmp_path: Path) -> None:
    rows = [{"prompt": f'["{QUESTION}"]'}, {"prompt": '["one", "two"]'}, {"prompt": "[not json"}, {"prompt": " \n"}]

    records, report = load_prompts(jsonl(tmp_path, *rows))

    assert records == [PromptRecord(MESSAGES, {}, 1), PromptRecord("[not json", {}, 3)]
    assert ["2 turns without the answers" in report.dropped[0].reason, report.dropped[1].reason] == [
        True,
        "prompt is blank",
    ]


def test_conversations_in_cells_of_a_table_are_read(tmp_path: Path) -> None:
    row = {"prompt": QUESTION, "chosen": json.dumps(CHAT["chosen"]), "rejected": json.dumps(CHAT["rejected"])}

    assert load_pairs(jsonl(tmp_path, row))[0] == [PairRecord(MESSAGES, BETTER, WORSE, None, 1)]


@pytest.mark.parametrize("answer", ['["x"]', '[{"id": 1}]', "[null]", "[1]"])
def test_answers_that_are_json_stay_as_they_are(answer: str, tmp_path: Path) -> None:
    row = {"prompt": "List it.", "completion": answer, "chosen": answer, "rejected": "[2]"}

    assert load_sft(jsonl(tmp_path, row))[0][0].completion == answer
    assert load_pairs(jsonl(tmp_path, row))[0][0].chosen == answer


def test_messages_win_over_a_text_prompt(tmp_path: Path) -> None:
    records, report = load_prompts(jsonl(tmp_path, {"prompt": QUESTION, "messages": [USER, said("x")]}))

    assert records[0].prompt == MESSAGES
    assert "messages are used" in report.warnings[0]


# Warnings


def test_unused_columns_that_matter_are_named(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": "c", "context": "all of it", "score": 0.1, "lang": "en", "input": ""}

    _, report = load_sft(jsonl(tmp_path, row))

    assert [warning.partition(" is not")[0] for warning in report.warnings] == [
        "the column context",
        "the column score",
    ]


def test_warnings_over_the_whole_file(tmp_path: Path) -> None:
    rows = [
        {"prompt": "p", "chosen": "long answer" + "x" * n, "rejected": "no", "score_chosen": 1, "score_rejected": 2}
        for n in range(4)
    ]

    _, report = load_pairs(jsonl(tmp_path, *rows, rows[0]))

    found = " | ".join(report.warnings)
    assert "5 rows have a chosen answer that scores below the rejected one (score order reversed)" in found
    assert "1 rows repeat an earlier row" in found
    assert "all 5 rows have the same prompt" in found
    assert "chosen is longer than rejected in 100% of the pairs" in found


def test_sound_rows_give_no_warning(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{n}", "chosen": "same", "rejected": "long"} for n in range(6)]

    assert load_pairs(jsonl(tmp_path, *rows))[1].warnings == ()
