"""Coroutines that belong together, and what happens to the others when one of them ends."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeVar

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")


async def cancel_and_wait(*tasks: "asyncio.Future[Any]") -> None:
    """Cancel the tasks and wait until all have ended; their errors are dropped."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def run_until_first_exit(*works: Coroutine[Any, Any, None]) -> None:
    """Run all works until the first ends, then cancel the others and wait for them. Raise the first one's error."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        await cancel_and_wait(*tasks)


async def gather_or_cancel(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Return the results of all works in their order. The first error ends the others and is raised after them."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        await cancel_and_wait(*tasks)


async def both_or_cancel(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Do as `gather_or_cancel`, for two works with results of different types."""
    first, second = asyncio.create_task(one), asyncio.create_task(other)
    try:
        return await asyncio.gather(first, second)
    finally:
        await cancel_and_wait(first, second)


async def gather_some_at_a_time(works: Sequence[Callable[[], Awaitable[T]]], concurrent: int) -> list[T]:
    """Do as `gather_or_cancel`, with `concurrent` works at a time."""
    return await gather_or_cancel(_gated(works, concurrent))


async def finish_all(works: Sequence[Callable[[], Awaitable[None]]], concurrent: int) -> None:
    """Run all works to their ends, `concurrent` at a time, and raise the first error after them.

    For works in threads: a cancelled one would go on, and further ones would start beside it.
    """
    for result in await asyncio.gather(*_gated(works, concurrent), return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


def _gated(works: Sequence[Callable[[], Awaitable[T]]], concurrent: int) -> list[Coroutine[Any, Any, T]]:
    """Return the works as coroutines of which `concurrent` run at a time."""
    gate = asyncio.Semaphore(concurrent)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    return [one(work) for work in works]


async def uncancellable(work: Coroutine[Any, Any, T]) -> T:
    """Return the result of `work`. A cancellation takes effect after it only.

    For threads that write alone: a thread cannot be stopped, so nothing else may write before it has ended.
    """
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled():
            task.exception()
        raise
