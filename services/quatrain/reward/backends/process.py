"""A reward function in its own process, as the service sees it."""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import TypeVar

from quatrain.errors import RewardFunctionError
from quatrain.reward.backends.replies import (
    MAX_REPLY_BYTES,
    BadReply,
    Failed,
    Loaded,
    Returned,
    read_loaded,
    read_returned,
)
from quatrain.reward.backends.sandbox import FOLDER_BYTES, Sandbox
from quatrain.reward.runner.frames import HEADER, encode_frame
from quatrain.reward.runner.requests import CallRequest, LoadRequest
from quatrain.telemetry.logging import get_logger

ReplyT = TypeVar("ReplyT", Loaded, Returned)
log = get_logger("reward.function")

LOGGED_LINES = 200
"""Lines of output that are logged for each call; further lines are only counted."""
TAIL_BYTES = 2000
CLOSE_SECONDS = 5.0
"""Time for a killed process to end. Only a child that left its session holds the pipes longer, and is not awaited."""
READ_BYTES = 65536
POLL_SECONDS = 1.0
"""Time between two checks of the size of a sandbox's folder."""


class CallFailed(RewardFunctionError):
    """A call failed. `message` says how, `advice` what helps; `sample` is the index of the failing one if it is known.

    `hung`: it took too long. `any_sample`: it was loading, or cannot be called at all, so that no sample is to blame.
    """

    def __init__(
        self, message: str, *, advice: str = "", sample: int | None = None, any_sample: bool = False, hung: bool = False
    ) -> None:
        super().__init__(message)
        self.advice = advice
        self.sample = sample
        self.any_sample = any_sample
        self.hung = hung


class FunctionProcess:
    """One runner. Calls come one at a time; a call that does not return an answer in time ends the process.

    Uploaded code has a `Sandbox`, is confined to it, and runs during calls only: between them its process is stopped.
    """

    def __init__(self, name: str, process: asyncio.subprocess.Process, sandbox: Sandbox | None) -> None:
        self._process = process
        self._sandbox = sandbox
        self._output = _Output(name)
        self._drain = asyncio.create_task(self._output.read(_pipe(process.stderr)))
        self._watch = asyncio.create_task(self._watch_folder())
        self._ended = False
        self._overfull = False
        self._receiving = False
        self.code_digest = ""
        self.enforced: Mapping[str, bool] = {}

    @classmethod
    async def start(cls, target: str, sandbox: Sandbox | None, timeout: float) -> "FunctionProcess":
        """Start a runner and import the function. Raises CallFailed with `loading`; then nothing is left running."""
        # Never a fork: subprocess execs at once, which is safe beside gRPC's threads. A session of its own, so that the
        # function's own children end with it and Ctrl-C in a terminal does not reach it.
        process = await asyncio.create_subprocess_exec(
            *(sys.executable if sandbox is None else sandbox.python, "-P", "-m", "quatrain.reward.runner"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env=_FIXED_VARIABLES | (_environment() if sandbox is None else dict(sandbox.environment)),
            cwd=None if sandbox is None else sandbox.folder,
            start_new_session=True,
        )
        runner = cls(target, process, sandbox)
        loaded = False
        try:
            load = LoadRequest(target)
            if sandbox is not None:
                file = None if sandbox.code is None else str(sandbox.code)
                folder = str(sandbox.folder) if file is None else None
                load = LoadRequest(target, file, folder, sandbox.confinement)
            reply = await runner._exchange(load, timeout, read_loaded)
            runner.code_digest, runner.enforced, loaded = reply.code_digest, reply.enforced, True
        finally:
            if not loaded:
                await runner.close()
        return runner

    @property
    def alive(self) -> bool:
        """Return whether the process can take a call."""
        return not self._ended and self._process.returncode is None

    async def call(self, request: CallRequest, samples: int) -> Returned:
        """Call the function about so many samples and return what it returned. Raises CallFailed."""
        self._output.next_call()
        return await self._exchange(request, request.timeout, partial(read_returned, samples=samples))

    async def close(self) -> None:
        """End the process and its children, and return when it and its folder are gone."""
        self._kill()
        self._watch.cancel()
        try:
            await self._await_end()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(CLOSE_SECONDS):
                    await self._drain
                    await self._empty_answers()
        finally:
            if self._sandbox is not None:
                await self._sandbox.close()

    async def _empty_answers(self) -> None:
        """Read what is left of an answer that nobody wanted: its pipe is closed only when it is empty."""
        stdout = _pipe(self._process.stdout)
        while not self._receiving and await stdout.read(READ_BYTES):
            pass

    async def _await_end(self) -> None:
        """Wait a moment for the end of the process.

        With `asyncio.timeout`: `wait_for` of Python 3.11 swallows a cancellation that comes as the process ends.
        """
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._process.wait()

    async def _exchange(
        self, request: LoadRequest | CallRequest, timeout: float, read: Callable[[bytes], ReplyT | Failed]
    ) -> ReplyT:
        """Send a request and read the answer. Raises CallFailed."""
        loading = isinstance(request, LoadRequest)
        reply: ReplyT | Failed | None = None
        self._signal(signal.SIGCONT)
        try:
            async with asyncio.timeout(timeout):
                body = await self._send_and_receive(encode_frame(request.to_json()))
            reply = None if body is None else read(body)
        except BadReply as error:
            raise CallFailed(f"sent an invalid answer: {error}", any_sample=loading) from error
        except TimeoutError:
            raise _too_slow(timeout, loading=loading) from None
        finally:
            # A pending answer would be taken for that of the next call. This holds for a cancelled call, too.
            if reply is None or isinstance(reply, Failed):
                self._ended = True
            else:
                self._signal(signal.SIGSTOP)
        if reply is None:
            raise await self._death(loading=loading)
        if isinstance(reply, Failed):
            raise CallFailed(
                reply.message, advice=reply.advice, sample=reply.sample, any_sample=loading or reply.any_sample
            )
        return reply

    async def _send_and_receive(self, frame: bytes) -> bytes | None:
        """Return the bytes of the answer, None if the process ended without one. Raises BadReply."""
        stdin, stdout = self._process.stdin, _pipe(self._process.stdout)
        assert stdin is not None, "the runner has no pipe"
        self._receiving = True
        try:
            stdin.write(frame)
            await stdin.drain()
            (length,) = HEADER.unpack(await stdout.readexactly(HEADER.size))
            if length > MAX_REPLY_BYTES:
                raise BadReply(f"it has {length} bytes, more than {MAX_REPLY_BYTES}; log less with log_extra")
            return await stdout.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        finally:
            self._receiving = False

    async def _death(self, *, loading: bool) -> CallFailed:
        """Return the error for a process that closed its pipe without an answer."""
        await self._await_end()
        await self.close()
        if self._overfull:
            most = f"{FOLDER_BYTES // 2**20} MiB"
            advice = f"the sandbox of uploaded code keeps at most {most}: delete what is not needed, or write less"
            return CallFailed(f"had more than {most} of files in its folder", advice=advice, any_sample=loading)
        code = self._process.returncode or 0
        how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        what = "could not be imported" if loading else "never returned"
        message = f"{what}: its process {how}{self._output.tail()}"
        return CallFailed(message, advice=_after_death(code, loading=loading), any_sample=loading)

    async def _watch_folder(self) -> None:
        while self._sandbox is not None:
            await asyncio.sleep(POLL_SECONDS)
            if await asyncio.to_thread(self._sandbox.overfull):
                self._overfull = True
                self._kill()
                return

    def _kill(self) -> None:
        self._ended = True
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def _signal(self, what: signal.Signals) -> None:
        """Stop or continue uploaded code. If the service dies meanwhile, the kernel ends the stopped process."""
        if self._sandbox is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, what)


def _too_slow(timeout: float, *, loading: bool) -> CallFailed:
    if loading:
        message = f"could not be imported within {timeout:g} s"
        advice = f"do less at import, or set reward.timeout above {timeout:g}, which bounds the import, too"
        return CallFailed(message, advice=advice, any_sample=True, hung=True)
    return CallFailed(
        f"did not return within {timeout:g} s",
        advice="reward.timeout bounds one call: raise it, make the function faster, or lower ppo.chunk_size, which "
        "bounds the samples of a call",
        hung=True,
    )


def _after_death(code: int, *, loading: bool) -> str:
    """Return what helps against such an end of the process."""
    if code == -signal.SIGKILL:
        return "the system ends a process like this where the machine is short of memory: keep less at a time"
    if code < 0:
        return "a library of compiled code has crashed: the output above its last line may say where"
    if loading:
        return "what a script does when it is started belongs under `if __name__ == '__main__':`"
    return "return a score, or raise an exception that says what is wrong, in place of ending the process"


class _Output:
    """The output of the function: it is logged up to a limit for each call, and its end is kept for error messages."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tail: deque[int] = deque(maxlen=TAIL_BYTES)
        self._lines = 0

    def next_call(self) -> None:
        if self._lines > LOGGED_LINES:
            log.warning("output of a reward function left out", function=self._name, lines=self._lines - LOGGED_LINES)
        self._lines = 0

    def tail(self) -> str:
        """Return the last line, for a message about the end of the process."""
        lines = bytes(self._tail).decode(errors="replace").strip().splitlines()
        return f"; its last output: {lines[-1]}" if lines else ""

    async def read(self, stream: asyncio.StreamReader) -> None:
        """Read until the process and its children have closed the pipe, in pieces, since a line may have any length."""
        while data := await stream.read(READ_BYTES):
            self._tail.extend(data[-TAIL_BYTES:])
            for line in data.decode(errors="replace").splitlines():
                self._lines += 1
                if self._lines <= LOGGED_LINES:
                    log.info("output of a reward function", function=self._name, output=line[:TAIL_BYTES])


_FIXED_VARIABLES = {
    "PYTHONUNBUFFERED": "1",  # its output is logged even if it dies
    "PYTHONHASHSEED": "0",  # two runs of a job see the same order of sets
}


def _environment() -> dict[str, str]:
    """Return the service's environment without Quatrain's settings, which hold secrets, and with its import path."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUATRAIN_")}
    return kept | {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}


def _pipe(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    assert stream is not None, "the runner has no pipe"
    return stream
