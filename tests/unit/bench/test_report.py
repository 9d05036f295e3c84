from pathlib import Path

import pytest
from bench.cases import CASES
from bench.flops import Row
from bench.local_job import Step, read_steps
from bench.peak import Peak
from bench.peers.running import PeerRun
from bench.report import combine, outside_share, summary

from quatrain.client import Event

ROWS = [Row(32, 64), Row(32, 10)]


def step(wall: float = 10.0, **seconds: float) -> Step:
    return Step(wall, 2 * wall, {f"time/{name}": value for name, value in seconds.items()}, ROWS)


def test_scores_and_reference_are_computed_at_the_same_time() -> None:
    measured = step(generate=2.0, score=1.0, reference=0.5, collect=3.5, train=6.0)

    assert outside_share(measured) == pytest.approx(1 - 9 / 10)


def test_rollouts_count_no_more_than_the_wait_for_them() -> None:
    """With chunks in parallel the sums over chunks exceed the wall time."""
    measured = step(generate=6.0, score=2.0, reference=2.0, collect=3.0, train=6.0)

    assert outside_share(measured) == pytest.approx(1 - 9 / 10)


def test_a_summary_tells_tokens_and_shares_of_both_peaks() -> None:
    found = summary(CASES["uniform"], [step(generate=1.0, train=8.0)], Peak(torch=1e9, fastest=2e9))

    assert found.completion_tokens_per_s == round(74 / 10)
    assert found.learner_peak_share == pytest.approx(2 * found.learner_fastest_peak_share, abs=2e-3)


@pytest.mark.parametrize(("rate", "reached"), [(60.0, True), (95.0, False)])
def test_rounds_are_joined_by_medians_and_judged(rate: float, reached: bool) -> None:
    run = summary(CASES["uniform"], [step(0.74, train=0.5)], Peak(1e9, 2e9))
    peer = PeerRun("other", "uniform", 1.0, 1.0, rate, 25.0, [60], [1.0])

    joined = combine(CASES["uniform"], [run, run], [peer, peer])

    assert joined.peer is not None
    assert joined.peer.ratio == pytest.approx(100 / rate, abs=0.01)
    assert joined.peer.cpu_ratio == 2.0
    assert joined.reached.peer_ratio is reached
    assert joined.reached.outside_share is None, "a step below two seconds is not judged"


def test_without_a_peer_there_is_no_ratio() -> None:
    joined = combine(CASES["ragged"], [summary(CASES["ragged"], [step(train=5.0)], Peak(1e9, 2e9))], [])

    assert joined.peer is None
    assert joined.reached.peer_ratio is None


def test_a_step_lasts_from_the_end_of_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bench.local_job._rows", lambda path: ROWS)
    events = []
    for number, second in ((1, 10), (2, 13)):
        data = {"stage": "ppo", "step": number, "key": f"batch-{number}", "metrics": {"time/step": 2.5}}
        time = f"2026-01-01T00:00:{second:02d}.500Z"
        events += [
            Event(2 * number + offset, kind, data, time, "o")
            for offset, kind in enumerate(("batch_sealed", "step_completed"))
        ]

    assert [found.wall for found in read_steps(events, {0: 1.0, 1: 5.0, 2: 10.0}, tmp_path)] == [2.5, 3.0]
