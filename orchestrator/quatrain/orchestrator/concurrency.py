"""Works that belong together: none of them goes on without the others."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Runs all works until the first ends, then cancels the others and waits for them. Raises the first one's error."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def some_at_a_time(works: Sequence[Callable[[], Awaitable[T]]], most: int) -> list[T]:
    """The results of all works in their order, `most` at a time. The first error ends the others and is raised."""
    gate = asyncio.Semaphore(most)

    async def one(work: Callable[[], Awaitable[T]]) -> T:
        async with gate:
            return await work()

    tasks = [asyncio.create_task(one(work)) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
