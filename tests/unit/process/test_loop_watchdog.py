import asyncio
import hashlib
import random
import threading
import time
from collections import Counter
from collections.abc import Callable

import pytest
import structlog

from quatrain.process import loop_watchdog
from quatrain.process.loop_watchdog import HELD, HELD_SECONDS, watched_loop


def counted() -> Counter[str]:
    """How many times the loop was held, by cause, and for how many seconds in all."""
    found: Counter[str] = Counter()
    for metric in HELD.collect():
        for sample in metric.samples:
            if sample.name.endswith("_count"):
                found[sample.labels["cause"]] += sample.value  # type: ignore[assignment]
            if sample.name.endswith("_sum"):
                found["seconds"] += sample.value  # type: ignore[assignment]
    return found


def compute(seconds: float) -> None:
    """Keep this thread computing, however many others there are."""
    started = time.thread_time()
    while time.thread_time() - started < seconds:
        hashlib.sha256(b"x" * 1000).hexdigest()


def held_while(work: Callable[[], object]) -> Counter[str]:
    async def scenario() -> None:
        with watched_loop():
            await asyncio.sleep(0.1)
            work()
            await asyncio.sleep(0.3)

    before = counted()
    asyncio.run(scenario())
    return counted() - before


def test_a_computation_is_counted_and_told_with_its_stack() -> None:
    with structlog.testing.capture_logs() as lines:
        held = held_while(lambda: compute(0.4))
    assert held["computing"] == 1
    assert 0.3 < held["seconds"] < 0.6
    (line,) = [line for line in lines if line["log_level"] == "warning"]
    assert "in compute" in line["stack"]
    assert line["seconds"] == pytest.approx(held["seconds"], abs=0.001)


def test_what_is_short_is_not_counted() -> None:
    assert not held_while(lambda: compute(HELD_SECONDS / 4))


def test_a_machine_that_gives_no_processor_is_not_counted() -> None:
    assert not held_while(lambda: time.sleep(0.5))


def test_a_call_that_blocks_without_computing_is_counted_in_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop_watchdog, "BLOCKED_SECONDS", 0.2)
    held = held_while(lambda: time.sleep(0.5))
    assert held["blocked"] == 1
    assert 0.4 < held["seconds"] < 2.0


def test_another_thread_that_keeps_the_interpreter_is_counted() -> None:
    numbers = list(range(1_000_000))
    thread = threading.Thread(target=numbers.sort)

    def sort_elsewhere() -> None:
        thread.start()
        thread.join()

    # Sorting is one call of C, which nothing interrupts.
    random.Random(1).shuffle(numbers)
    held = held_while(sort_elsewhere)
    assert held["interpreter"] == 1
    assert held["seconds"] > HELD_SECONDS


def test_a_second_warning_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def twice() -> None:
        async def scenario() -> None:
            with watched_loop():
                for _ in range(2):
                    await asyncio.sleep(0.1)
                    compute(0.2)
                await asyncio.sleep(0.2)

        asyncio.run(scenario())

    before = counted()
    with structlog.testing.capture_logs() as lines:
        twice()
    assert (counted() - before)["computing"] == 2
    assert len(lines) == 1
