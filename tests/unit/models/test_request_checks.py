"""What a refused request says."""

import numpy as np
import pytest

from quatrain.errors import InvalidInput
from quatrain.models.request_checks import ModelLimits, RequestCheck

LIMITS = ModelLimits(vocabulary=40, positions=8)


def row(*ids: int) -> np.ndarray:
    return np.array(ids, np.int32)


def test_a_sound_request_passes() -> None:
    check = RequestCheck("Generation", model="policy")
    check.require_basics("job", "bfloat16", [row(1)])
    check.require_temperature(0.5, "temperature")
    check.require_known(row(0, 39), LIMITS, "prompt_ids", "row 0")
    check.require_known(row(2**31 - 1), ModelLimits(), "prompt_ids", "row 0")
    check.require(LIMITS.has_room(8), "prompt_ids", "no room")
    check.require(ModelLimits().has_room(2**31), "prompt_ids", "no room")
    check.raise_if_wrong()


def test_a_refusal_holds_everything_that_is_wrong_and_shows_the_first_five() -> None:
    check = RequestCheck("Generation", model="policy")
    check.require_basics("", "int8", [row(), row(1)])
    check.require_temperature(float("inf"), "sampling.temperature")
    check.require_known(row(3, 41, -1), LIMITS, "prompt_ids", "row 4")
    check.require_known(row(-2), ModelLimits(), "prompt_ids", "row 5")
    check.require(LIMITS.has_room(9), "prompt_ids", "no room")

    with pytest.raises(InvalidInput) as caught:
        check.raise_if_wrong()

    assert caught.value.message == (
        "Generation request refused. job: must name the job; dtype: must be one of float32, bfloat16, not 'int8'; "
        "prompt_ids: every prompt needs at least one token; sampling.temperature: must be a number above 0, not inf; "
        "prompt_ids: row 4 holds id 41, but the policy knows ids 0 to 39"
    )
    assert [violation.description for violation in caught.value.violations[5:]] == [
        "row 5 holds id -2, but the policy knows no negative ids",
        "no room",
    ]
