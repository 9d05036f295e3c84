"""The end of a reward function's process, seen from the service."""

import asyncio

import pytest

from quatrain.reward.backends.process import FunctionProcess


def test_a_close_that_is_cancelled_as_the_process_ends_stays_cancelled() -> None:
    async def scenario() -> None:
        runner = await FunctionProcess.start("math:fsum", None, 30.0)
        await runner.close()
        for turns in range(6):  # between the end of the process and the return of `close`
            ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
            closing = asyncio.create_task(_close_until(runner, ended))
            await asyncio.sleep(0.01)
            ended.set_result(0)
            for _ in range(turns):
                await asyncio.sleep(0)
            if closing.cancel():
                with pytest.raises(asyncio.CancelledError):
                    await closing

    asyncio.run(scenario())


async def _close_until(runner: FunctionProcess, ended: "asyncio.Future[int]") -> None:
    """Closes a runner whose process ends when the test says so."""

    async def wait() -> int:
        return await ended

    runner._process.wait = wait  # type: ignore[method-assign]
    await runner.close()
