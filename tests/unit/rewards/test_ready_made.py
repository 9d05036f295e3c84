"""The ready-made reward functions, with exact values."""

import time
from typing import Any

import pytest

from quatrain import rewards

TWO_MESSAGES = [{"role": "assistant", "content": "7"}]


def ids(*lengths: int) -> list[list[int]]:
    return [[1] * length for length in lengths]


def test_length_band_is_one_inside_and_falls_outside() -> None:
    lengths = (0, 10, 20, 50, 80, 100, 160, 1000)

    scores = rewards.length_band(["x"] * len(lengths), ids(*lengths), low=20, high=80)

    assert scores == [0.0, 0.5, 1.0, 1.0, 1.0, 0.75, 0.0, 0.0]


def test_length_band_counts_words_or_characters() -> None:
    assert rewards.length_band(["a b c d", "a"], ids(1, 1), 2, 4, unit="words") == [1.0, 0.5]
    assert rewards.length_band(["abcdef", "äb"], ids(1, 1), 1, 4, unit="characters") == [0.5, 1.0]


@pytest.mark.parametrize("wrong", [{"low": 5, "high": 2}, {"low": -1, "high": 2}, {"low": 0, "high": 0}])
def test_a_band_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no band"):
        rewards.length_band(["x"], ids(1), **wrong)


def test_an_unknown_unit_is_refused() -> None:
    with pytest.raises(ValueError, match="none of tokens, words, characters"):
        rewards.length_band(["x"], ids(1), 1, 2, unit="lines")


def test_keywords_are_shares_of_wanted_minus_unwanted() -> None:
    texts = ["Please, thank you", "PLEASE damn", "nothing", "damn"]

    scores = rewards.keywords(texts, wanted=["please", "thank"], unwanted=["damn"])

    assert scores == [1.0, -0.5, 0.0, -1.0]
    assert rewards.keywords(["PLEASE"], wanted=["please"], ignore_case=False) == [0.0]
    with pytest.raises(ValueError, match="lists of texts"):
        rewards.keywords(["x"], wanted="please")
    with pytest.raises(ValueError, match="lists of texts"):
        rewards.keywords(["x"])


def test_repetition_is_minus_the_share_of_repeated_sequences() -> None:
    texts = ["a b c d", "a b A B a b", "x x x x", "one", ""]

    assert rewards.repetition(texts, n=2) == [0.0, pytest.approx(-0.6), pytest.approx(-2 / 3), 0.0, 0.0]
    assert rewards.repetition(["x x x x"], n=1) == [-0.75]
    with pytest.raises(ValueError, match="1 or more"):
        rewards.repetition(["x"], n=0)


def test_exact_match_ignores_white_space_only() -> None:
    answers = ["New  York", "new york", None, 7]

    scores = rewards.exact_match([" New York\n", "New York", "x", TWO_MESSAGES], answer=answers)

    assert scores == [1.0, 0.0, None, 1.0]
    assert rewards.exact_match(["New York"], column="solution", ignore_case=True, solution=["new york"]) == [1.0]
    with pytest.raises(ValueError, match=r"no column 'answer'; there are: 'solution'"):
        rewards.exact_match(["x"], solution=["x"], prompts=["p"])


@pytest.mark.parametrize(
    ("text", "answer", "score"),
    [
        ("The answer is 42.", "42", 1.0),
        ("First 3, then 42", "#### 42", 1.0),
        ("1,234.50", 1234.5, 1.0),
        ("$1,234", "1234", 1.0),
        ("-3e-2", -0.03, 1.0),
        ("5-3", "3", 1.0),
        ("it is -3", "3", 0.0),
        (".5", 0.5, 1.0),
        ("12,34", "34", 1.0),
        ("none", "42", 0.0),
        ("0.3333", "0.33333333", 0.0),
        ("42", None, None),
        ("42", "unknown", None),
        ("1e999", "42", 0.0),
        ("9" * 400, "42", 0.0),
    ],
)
def test_numeric_match_compares_the_last_numbers(text: str, answer: Any, score: float | None) -> None:
    assert rewards.numeric_match([text], answer=[answer]) == [score]


def test_numeric_match_has_a_tolerance() -> None:
    assert rewards.numeric_match(["0.333"], answer=["0.3333"], relative=0.01) == [1.0]
    assert rewards.numeric_match(["0.1"], answer=["0"], absolute=0.2) == [1.0]


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", ["1," * 20_000, "1" * 40_000, "1,234" * 8_000, "-+" * 20_000, "1e" * 20_000, "." * 40_000]
)
def test_numbers_are_found_in_any_text_in_time(text: str) -> None:
    started = time.monotonic()

    rewards.numeric_match([text], answer=["1"])

    assert time.monotonic() - started < 5.0


def test_pattern_searches_or_matches_the_whole() -> None:
    texts = ["abc 12", "12", "abc"]

    assert rewards.pattern(texts, r"\d+") == [1.0, 1.0, 0.0]
    assert rewards.pattern(texts, r"\d+", whole=True) == [0.0, 1.0, 0.0]
    with pytest.raises(ValueError, match="no regular expression"):
        rewards.pattern(texts, "(")


def test_a_pattern_that_takes_for_ever_is_stopped() -> None:
    started = time.monotonic()

    with pytest.raises(ValueError, match="took longer than 1 s"):
        rewards.pattern(["a" * 60 + "!"], r"^(a|aa|a?)+$")

    assert time.monotonic() - started < 10.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("<think>why</think><answer>7</answer>", 1.0),
        (" <think>why</think>\n\n<answer></answer>\n", 1.0),
        ("<think>why</think> so <answer>7</answer>", 0.0),
        ("<answer>7</answer><think>why</think>", 0.0),
        ("<think>a</think><think>b</think><answer>7</answer>", 0.0),
        ("<think>why<answer>7</answer></think>", 0.0),
        ("<think>why</think><answer>7</answer> bye", 0.0),
        ("<think>why</think>", 0.0),
        ("", 0.0),
    ],
)
def test_format_tags_wants_each_tag_once_and_in_order(text: str, score: float) -> None:
    assert rewards.format_tags([text]) == [score]


def test_format_tags_takes_other_tags() -> None:
    assert rewards.format_tags(["<a>1</a>", "1"], tags=["a"]) == [1.0, 0.0]
    for wrong in ("think", [], [""]):
        with pytest.raises(ValueError, match="list of tags"):
            rewards.format_tags(["x"], tags=wrong)


SCHEMA = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}


def test_json_schema_tells_valid_from_other_json_from_none() -> None:
    texts = ['{"name": "Ann"}', '{"name": 3}', "[]", "{name: Ann}", "NaN", "", "9" * 5000, "[" * 100_000]

    assert rewards.json_schema(texts, schema=SCHEMA) == [1.0, 0.5, 0.5, 0.0, 0.0, 0.0, 0.0, 0.0]
    assert rewards.json_schema(["[1]", "x"]) == [1.0, 0.0]


def test_a_deep_json_fails_no_call() -> None:
    schema = {"$defs": {"t": {"type": "array", "items": {"$ref": "#/$defs/t"}}}, "$ref": "#/$defs/t"}

    assert rewards.json_schema(["[[]]", "[" * 400 + "]" * 400, "[[1]]"], schema=schema)[0] == 1.0


@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"type": "objekt"}, "no JSON schema"),
        ({"$ref": "#"}, "refers to itself without end"),
        ({"$ref": "http://127.0.0.1:9/schema.json"}, "no part of it"),
        ({"properties": {"a": {"$ref": "#/nowhere"}}}, "no part of it"),
    ],
)
def test_a_schema_that_cannot_be_used_is_refused_and_nothing_is_fetched(schema: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        rewards.json_schema(['{"a": 1}'], schema=schema)


def test_completions_may_be_conversations() -> None:
    assert rewards.pattern([TWO_MESSAGES], "7") == [1.0]
    with pytest.raises(ValueError, match="neither a text nor a list"):
        rewards.pattern([7], "7")
