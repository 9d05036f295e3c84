import pytest

from quatrain.backoff import Backoff


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff(first=0.5, longest=3.0)

    assert [backoff.pause(failures) for failures in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("failures", [-1, 0])
def test_no_failure_waits_as_one_does(failures: int) -> None:
    assert Backoff(first=0.5, longest=3.0).pause(failures) == 0.5


def test_any_number_of_failures_has_a_pause() -> None:
    assert Backoff(first=0.5, longest=3.0).pause(10**6) == 3.0


def test_jitter_spreads_also_the_longest_pause() -> None:
    backoff = Backoff(first=1.0, longest=4.0, jitter=0.25)

    pauses = [backoff.pause(9) for _ in range(1000)]

    assert 3.0 <= min(pauses) < 3.2
    assert 4.8 < max(pauses) <= 5.0
