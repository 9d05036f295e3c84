"""The lint that refuses the words which were given up."""

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[3] / ".ci" / "check_words.py"


@pytest.fixture(scope="module")
def check_words() -> ModuleType:
    spec = importlib.util.spec_from_file_location("check_words", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("text", "instead"),
    [
        ("A wish such as a cancellation.", "intent, request, ask"),
        ("whoever Wished it", "intent, request, ask"),
        ("async def watch_wishes(self) -> None:", "intent, request, ask"),
        ("class WishList:", "intent, request, ask"),
        ("the artefacts of a job", "artifact"),
        ("self._heed(intent)", "apply, raise_if_asked"),
        ("class StaleZombie:", "stale owner"),
        ("from quatrain.orchestrator import odd_answers", "degenerate_answers"),
        ("await to_the_end(task)", "uncancellable"),
        ("MOST_TAKEOVERS = 7", "MAX_TAKEOVERS"),
        ("    _LOOK_SECONDS: float", "POLL_SECONDS"),
    ],
)
def test_a_planted_word_is_refused(check_words: ModuleType, text: str, instead: str) -> None:
    (problem,) = check_words.problems("lib/quatrain/planted.py", f"first line\n{text}\n")

    assert problem.startswith("lib/quatrain/planted.py:2: ")
    assert problem.endswith(f"is given up: {instead}")


@pytest.mark.parametrize(
    "text",
    [
        "The stream lasts to the end, side by side with others.",
        "swish = a_most_likely_value()",
        "peak_share_at_least = AT_LEAST_ONCE",
        "def test_a_pin_holds_to_the_end() -> None:",
        "an intent such as a cancellation, an artifact",
    ],
)
def test_other_words_are_accepted(check_words: ModuleType, text: str) -> None:
    assert list(check_words.problems("lib/quatrain/plain.py", text)) == []


def test_names_of_files_count(check_words: ModuleType) -> None:
    (problem,) = check_words.problems("tests/chaos/weather.py", "")

    assert "(its name)" in problem


def test_an_exception_holds_for_its_files_only(check_words: ModuleType) -> None:
    text = 'COURTESIES = ("thanks", "wish")'

    assert list(check_words.problems("examples/courteous-replies/make_data.py", text)) == []
    assert len(list(check_words.problems("examples/count-token/reward.py", text))) == 1


def test_every_exception_has_a_word_of_the_tables_and_a_reason(check_words: ModuleType) -> None:
    for pattern, word, reason in check_words.ALLOWED:
        assert word in check_words.WORDS | check_words.CONSTANTS, pattern
        assert reason
