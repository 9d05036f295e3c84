from types import SimpleNamespace

import pytest
from tests.unit.examples.loading import COURTEOUS, script

from quatrain.client import Event

DEMO = script(COURTEOUS, "demo")


def test_a_change_is_paired_by_prompt() -> None:
    found = DEMO.change([1.0, 2.0, None, 9.0], [2.0, 4.0, 5.0, 12.0])

    assert (found.before, found.after) == (4.0, 6.0)
    assert found.error == pytest.approx(1 / 3**0.5)
    assert found.stands_out


def test_a_small_rise_does_not_stand_out() -> None:
    assert not DEMO.change([0.0, 0.0, 0.0], [0.0, 0.0, 1.0]).stands_out
    assert not DEMO.change([1.0, 1.0, 1.0], [0.0, 0.0, 0.0]).stands_out


def test_replies_that_say_a_sentence_again_are_counted() -> None:
    replies = ("I am sorry for this. I am sorry for this.", "I am sorry for this. Have a nice day.", "")
    assert DEMO.repeating([SimpleNamespace(completion=reply) for reply in replies]) == 1


def test_stages_are_timed_without_their_evaluations() -> None:
    def event(second: int, type: str, **data: object) -> Event:
        return Event(1, type, data, f"2026-01-01T00:00:{second:02d}.000Z", "o")

    events = [
        event(1, "stage_started", stage="sft"),
        event(4, "stage_completed", stage="sft"),
        event(5, "stage_started", stage="ppo"),
        event(6, "learner_opened", stage="ppo"),
        event(9, "evaluated", step=0),
        event(20, "step_completed", stage="ppo"),
        event(22, "evaluated", step=1),
        event(25, "stage_completed", stage="ppo"),
    ]

    assert DEMO.stage_seconds(events) == {"sft": 3.0, "ppo": 15.0, "evaluation": 5.0}
