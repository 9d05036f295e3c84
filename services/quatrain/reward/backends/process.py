"""A reward function in a process of its own, seen from the service."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from quatrain.errors import RewardFunctionError
from quatrain.reward.runner.frames import HEADER, decode_body, encode_frame
from quatrain.telemetry.logging import get_logger

log = get_logger("reward.function")

LOGGED_LINES = 200
"""Lines of a call's output that are logged; the rest is counted."""
TAIL_BYTES = 2000
CLOSE_SECONDS = 5.0
"""For a killed process to be gone. Only a child that left its session holds the pipes longer; nobody waits for it."""
READ_BYTES = 65536


class CallFailed(RewardFunctionError):
    """A call failed. `message` says how; `sample` is the index of the sample at fault when the runner knows it."""

    def __init__(self, message: str, sample: int | None = None, *, loading: bool = False, hung: bool = False) -> None:
        super().__init__(message)
        self.sample = sample
        self.loading = loading
        self.hung = hung


class FunctionProcess:
    """One runner. Calls come one at a time; a call that does not return an answer in time ends the process."""

    def __init__(self, name: str, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._output = _Output(name)
        self._drain = asyncio.create_task(self._output.read(_pipe(process.stderr)))
        self._ended = False
        self.code_digest = ""

    @classmethod
    async def start(cls, target: str, file: Path | None, time_limit: float) -> "FunctionProcess":
        """Start a runner and import the function. Raises CallFailed with `loading`; then nothing is left running."""
        # Never a fork: subprocess execs at once, which is safe beside gRPC's threads. A session of its own, so that the
        # function's own children end with it and Ctrl-C in a terminal does not reach it.
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "quatrain.reward.runner",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_environment(),
            start_new_session=True,
        )
        runner = cls(target, process)
        try:
            load = {"target": target, "file": None if file is None else str(file)}
            runner.code_digest = (await runner._exchange(load, time_limit, loading=True))["code_digest"]
        finally:
            if not runner.code_digest:
                await runner.close()
        return runner

    @property
    def alive(self) -> bool:
        """It can take a call."""
        return not self._ended and self._process.returncode is None

    async def call(
        self, columns: Mapping[str, list[Any]], trainer_state: Mapping[str, Any], time_limit: float
    ) -> dict[str, Any]:
        """What the function returned for these columns: terms, logged, metrics. Raises CallFailed."""
        self._output.next_call()
        message = {"columns": columns, "trainer_state": trainer_state, "time_limit": time_limit}
        return await self._exchange(message, time_limit, loading=False)

    async def close(self) -> None:
        """End the process and all that it has started; return when it is gone."""
        self._kill()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), CLOSE_SECONDS)
            await asyncio.wait_for(self._drain, CLOSE_SECONDS)

    async def _exchange(self, message: dict[str, Any], time_limit: float, *, loading: bool) -> dict[str, Any]:
        reply: dict[str, Any] | None = None
        try:
            async with asyncio.timeout(time_limit):
                reply = await self._send_and_receive(encode_frame(message))
        except TimeoutError:
            doing = "could not be imported" if loading else "did not return"
            raise CallFailed(f"{doing} within {time_limit:g} s", loading=loading, hung=True) from None
        finally:
            # A runner whose answer is still to come would give it to the next call; also when this call is cancelled.
            if reply is None or reply["status"] == "failed":
                self._ended = True
        if reply is None:
            raise CallFailed(await self._death(), loading=loading)
        if reply["status"] == "failed":
            raise CallFailed(reply["what"], reply["sample"], loading=loading)
        return reply

    async def _send_and_receive(self, frame: bytes) -> dict[str, Any] | None:
        stdin, stdout = self._process.stdin, _pipe(self._process.stdout)
        assert stdin is not None, "the runner has no pipe"
        try:
            stdin.write(frame)
            await stdin.drain()
            (length,) = HEADER.unpack(await stdout.readexactly(HEADER.size))
            return decode_body(await stdout.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None

    async def _death(self) -> str:
        """How a process ended that closed its pipe without an answer. It may need a moment to be gone."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), CLOSE_SECONDS)
        await self.close()
        code = self._process.returncode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        return f"never returned: its process {how}{self._output.tail()}"

    def _kill(self) -> None:
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)


class _Output:
    """What the function prints: logged, with a bound per call, and its end kept for error messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tail: deque[int] = deque(maxlen=TAIL_BYTES)
        self._lines = 0

    def next_call(self) -> None:
        if self._lines > LOGGED_LINES:
            log.warning("output of a reward function left out", function=self._name, lines=self._lines - LOGGED_LINES)
        self._lines = 0

    def tail(self) -> str:
        """The last line, for a message about how the process ended."""
        lines = bytes(self._tail).decode(errors="replace").strip().splitlines()
        return f"; its last output: {lines[-1]}" if lines else ""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read until the process and its children have closed the pipe. In pieces: a line has no bound."""
        while data := await stream.read(READ_BYTES):
            self._tail.extend(data[-TAIL_BYTES:])
            for line in data.decode(errors="replace").splitlines():
                self._lines += 1
                if self._lines <= LOGGED_LINES:
                    log.info("output of a reward function", function=self._name, output=line[:TAIL_BYTES])


def _environment() -> dict[str, str]:
    """The service's environment without its own settings (they hold the store's secrets), and its import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUATRAIN_")}
    fixed = {
        "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path),
        "PYTHONUNBUFFERED": "1",  # what it prints is in the log even when it dies
        "PYTHONHASHSEED": kept.get("PYTHONHASHSEED", "0"),  # two runs of a job see the same order of sets
    }
    return kept | fixed


def _pipe(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert stream is not None, "the runner has no pipe"
    return stream
