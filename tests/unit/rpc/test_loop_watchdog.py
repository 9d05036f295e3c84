import asyncio
import hashlib
import time
from collections.abc import Callable

import pytest
import structlog

from quatrain.rpc import loop_watchdog
from quatrain.rpc.loop_watchdog import HELD, HELD_SECONDS, watched_loop


def counted() -> tuple[float, float]:
    """How many times the loop was held, and for how many seconds in all."""
    samples = {sample.name: sample.value for metric in HELD.collect() for sample in metric.samples}
    return samples["quatrain_event_loop_held_seconds_count"], samples["quatrain_event_loop_held_seconds_sum"]


def compute(seconds: float) -> None:
    """Keep this thread computing, however many others there are."""
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        hashlib.sha256(b"x" * 1000).hexdigest()


def held_while(work: Callable[[], None]) -> tuple[float, float]:
    async def scenario() -> None:
        with watched_loop():
            await asyncio.sleep(0.1)
            work()
            await asyncio.sleep(0.3)

    before = counted()
    asyncio.run(scenario())
    after = counted()
    return after[0] - before[0], after[1] - before[1]


def test_a_computation_is_counted_and_told_with_its_stack() -> None:
    with structlog.testing.capture_logs() as lines:
        times, seconds = held_while(lambda: compute(0.4))
    assert times == 1
    assert 0.3 < seconds < 0.6
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert "in compute" in line["stack"]
    assert line["seconds"] == pytest.approx(seconds, abs=0.001)


def test_what_is_short_is_not_counted() -> None:
    assert held_while(lambda: compute(HELD_SECONDS / 4)) == (0, 0)


def test_a_machine_that_gives_no_processor_is_not_counted() -> None:
    assert held_while(lambda: time.sleep(0.5)) == (0, 0)


def test_a_call_that_blocks_without_computing_is_counted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watchdog, "BLOCKED_SECONDS", 0.2)
    times, seconds = held_while(lambda: time.sleep(0.5))
    assert times == 1
    assert 0.4 < seconds < 2.0


def test_a_second_warning_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        async def scenario() -> None:
            with watched_loop():
                for _ in range(2):
                    await asyncio.sleep(0.1)
                    compute(0.2)
                await asyncio.sleep(0.2)

        asyncio.run(scenario())

    before = counted()[0]
    with structlog.testing.capture_logs() as lines:
        twice()
    assert counted()[0] - before == 2
    assert len(lines) == 1
