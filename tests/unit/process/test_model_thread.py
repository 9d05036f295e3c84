"""The thread that owns a model."""

import asyncio
import threading
import time

import pytest

from quatrain.errors import OutOfMemory, Overloaded, Unavailable
from quatrain.process import model_thread
from quatrain.process.model_thread import ModelThread, made_progress


def test_calls_run_one_after_the_other_in_one_thread() -> None:
    async def work() -> None:
        model = ModelThread(8)
        seen: list[int] = []

        def note(number: int) -> str:
            seen.append(number)
            return threading.current_thread().name

        names = await asyncio.gather(*(model.run(note, number) for number in range(8)))
        assert seen == list(range(8))
        assert set(names) == {"model"}
        model.close(wait=1.0)

    asyncio.run(work())


def test_a_full_queue_refuses_at_once_and_recovers() -> None:
    async def work() -> None:
        model = ModelThread(2)
        release = threading.Event()
        waiting = [asyncio.ensure_future(model.run(release.wait, 5.0)) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert model.busy_since is not None
        assert model.busy_since <= time.monotonic()
        assert model.waiting == 2
        with pytest.raises(Overloaded, match="2 calls already wait") as caught:
            await model.run(release.wait)
        assert caught.value.retry_after > 0
        release.set()
        assert await asyncio.gather(*waiting) == [True] * 3
        assert await model.run(int, "7") == 7
        assert model.busy_since is None
        model.close(wait=1.0)

    asyncio.run(work())


def test_what_a_call_raises_reaches_its_caller_and_only_him() -> None:
    async def work() -> None:
        model = ModelThread(2)
        with pytest.raises(ZeroDivisionError):
            await model.run(lambda: 1 // 0)
        assert await model.run(int, "7") == 7
        model.close(wait=1.0)

    asyncio.run(work())


def test_a_call_cancelled_while_it_waits_never_runs() -> None:
    async def work() -> None:
        model = ModelThread(2)
        release = threading.Event()
        ran: list[int] = []
        first = asyncio.ensure_future(model.run(release.wait, 5.0))
        second = asyncio.ensure_future(model.run(ran.append, 1))
        await asyncio.sleep(0.05)
        second.cancel()
        await asyncio.sleep(0)
        release.set()
        await first
        await model.run(ran.append, 2)
        assert ran == [2]
        model.close(wait=1.0)

    asyncio.run(work())


def test_a_call_cancelled_while_it_runs_goes_on_and_frees_its_slot() -> None:
    async def work() -> None:
        model = ModelThread(0)
        release, finished = threading.Event(), threading.Event()

        def compute() -> None:
            release.wait(5.0)
            finished.set()

        call = asyncio.ensure_future(model.run(compute))
        await asyncio.sleep(0.05)
        call.cancel()
        release.set()
        assert await asyncio.to_thread(finished.wait, 5.0)
        await asyncio.sleep(0.05)
        assert await model.run(int, "7") == 7
        model.close(wait=1.0)

    asyncio.run(work())


def test_a_closed_thread_takes_nothing_and_finishes_what_it_has() -> None:
    async def work() -> None:
        model = ModelThread(2)
        call = asyncio.ensure_future(model.run(time.sleep, 0.05))
        await asyncio.sleep(0)
        model.close()
        with pytest.raises(Unavailable, match="stopping"):
            await model.run(int)
        await call

    asyncio.run(work())


def test_a_thread_without_progress_is_stuck_and_one_that_gets_on_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model_thread, "EXIT_AFTER_SECONDS", 3600.0)  # the process goes on
    release = threading.Event()

    def crawl() -> None:
        while not release.wait(0.05):
            made_progress()

    async def work() -> None:
        model = ModelThread(2, stuck_after=0.5)
        model.check_progress()
        crawling = asyncio.create_task(model.run(crawl))
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(model.watch(), 1.5)
        release.set()
        await crawling
        release.clear()
        hanging = model.submit(release.wait)
        with pytest.raises(Unavailable, match=r"no progress for .* s \(compute.stuck_after is 0.5 s\)"):
            await asyncio.wait_for(model.watch(), 30.0)
        release.set()
        hanging.result(30.0)
        model.check_progress()
        model.close(wait=1.0)

    asyncio.run(work())


def test_lack_of_memory_is_an_error_of_its_own_without_the_frames_that_hold_the_tensors() -> None:
    class OutOfMemoryError(RuntimeError):  # as torch names it
        pass

    def raising(error: Exception) -> None:
        raise error

    async def work() -> None:
        model = ModelThread(2)
        for error in (
            OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nmore"),
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"),
            MemoryError(),
        ):
            with pytest.raises(OutOfMemory, match="out of memory: ") as caught:
                await model.run(raising, error)
            assert caught.value.__cause__ is None
            assert caught.value.__context__ is None
        with pytest.raises(RuntimeError, match="something else"):
            await model.run(raising, RuntimeError("something else"))
        model.close(wait=1.0)

    asyncio.run(work())
