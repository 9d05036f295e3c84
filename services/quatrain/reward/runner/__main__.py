"""Runs one reward function for the reward service, which starts it as `python -m quatrain.reward.runner`.

Messages arrive on standard input and leave on standard output. The function sees neither: its standard input is empty,
and its output goes to standard error, which the service logs. After a failure the process sends a last message and
ends, so that no later call meets the state that a failed one has left.
"""

import asyncio
import contextlib
import faulthandler
import io
import os
import queue
import sys
import threading
import traceback
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, BinaryIO

from quatrain.reward.runner.advice import advice
from quatrain.reward.runner.calling import BadReturn, call_function
from quatrain.reward.runner.confinement import Confinement, NotConfined, confine
from quatrain.reward.runner.frames import encode_frame, read_frame
from quatrain.reward.runner.loading import BadFunction, load_function
from quatrain.reward.runner.requests import CallRequest, LoadRequest
from quatrain.reward.runner.signatures import BadSignature

MAX_TEXT = 1000
"""Characters of an exception in a message, which has room for the way out, too."""
ORPHAN_GRACE_SECONDS = 15.0
"""The service kills a hanging runner; this ends one that hangs after its service has died."""


def main() -> None:
    """Serve until the service closes the pipe."""
    requests, replies = _private_pipes()
    sys.excepthook = last_message = _LastMessage(replies)
    message = read_frame(requests)
    if message is None:
        return
    load = LoadRequest.from_json(message)
    last_message.confinement, last_message.uploaded = load.confinement, load.uploaded
    # Before the first thread and before any foreign code: the restrictions do not hold for threads that already run.
    enforced = {} if load.confinement is None else confine(load.confinement)
    inbox: queue.SimpleQueue[CallRequest] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(requests, inbox), daemon=True).start()
    function, digest = load_function(load.target, load.file, load.folder)
    _send(replies, {"status": "loaded", "code_digest": digest, "enforced": enforced})
    with asyncio.Runner() as runner:
        while True:
            call = inbox.get()
            faulthandler.dump_traceback_later(call.timeout + ORPHAN_GRACE_SECONDS, exit=True, file=2)
            reply = _answer(function, call, runner)
            faulthandler.cancel_dump_traceback_later()
            _send(replies, reply)


def _private_pipes() -> tuple[io.RawIOBase, BinaryIO]:
    """Move the protocol to other file descriptors than 0 and 1, so that a print cannot break it."""
    # Unbuffered: a buffered reader's lock, held by the receiving thread, is a fatal error when the interpreter ends.
    requests, replies = io.FileIO(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.dup2(2, 1)
    return requests, replies


def _receive(requests: io.RawIOBase, inbox: "queue.SimpleQueue[CallRequest]") -> None:
    """Read in its own thread, so that this process ends with the service even while the function runs."""
    while (message := read_frame(requests)) is not None:
        inbox.put(CallRequest(**message))
    os._exit(0)


def _answer(function: Callable[..., Any], call: CallRequest, runner: asyncio.Runner) -> dict[str, object]:
    returned = call_function(function, call.columns, call.trainer_state, runner, call.args)
    return {
        "status": "returned",
        "terms": returned.terms,
        "logged": returned.logged.columns,
        "metrics": returned.logged.metrics,
    }


def _send(replies: BinaryIO, message: Mapping[str, object]) -> None:
    sys.stdout.flush()
    replies.write(encode_frame(message))
    replies.flush()


class _LastMessage:
    """The excepthook, which reports to the service what the function, or its import, raised."""

    def __init__(self, replies: BinaryIO) -> None:
        self._replies = replies
        self.confinement: Confinement | None = None
        self.uploaded = False

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        with contextlib.suppress(BrokenPipeError):
            reply = {
                "status": "failed",
                "message": _describe(error, trace),
                "advice": advice(error, self.confinement, uploaded=self.uploaded),
                "sample": error.sample if isinstance(error, BadReturn) else None,
                "any_sample": isinstance(error, BadSignature),
            }
            _send(self._replies, reply)
        sys.__excepthook__(kind, error, trace)
        sys.stderr.flush()
        os._exit(1)  # threads that the function has left behind must not keep the process alive


def _describe(error: BaseException, trace: TracebackType | None) -> str:
    if isinstance(error, BadFunction | BadSignature):
        return f"cannot be used: {error}"
    if isinstance(error, NotConfined):
        return f"is not run: {error}"
    if isinstance(error, BadReturn):
        return f"returned the wrong thing: {error}"
    text = "".join(traceback.format_exception_only(error)).strip()
    frames = traceback.extract_tb(trace)
    where = f" ({os.path.basename(frames[-1].filename)}, line {frames[-1].lineno})" if frames else ""
    return f"raised {text[:MAX_TEXT]}{where}"


if __name__ == "__main__":
    main()
