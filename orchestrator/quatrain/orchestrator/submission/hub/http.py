"""The connections of the Hub's client, in which every piece that arrives asks whether reading may go on."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import httpx
import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.utils.tqdm import disable_progress_bars

_may_go_on: ContextVar[Callable[[], None] | None] = ContextVar("may_go_on", default=None)
CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 30.0


class _AskingStream(httpx.SyncByteStream):
    """A body whose every piece is preceded by the question: the client's own time-outs end silence, not a trickle."""

    def __init__(self, stream: httpx.SyncByteStream) -> None:
        self._stream = stream

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._stream:
            _ask()
            yield piece

    def close(self) -> None:
        """Close the connection's side of it."""
        self._stream.close()


def prepare_client() -> None:
    """Set the process's Hub client up: connections that ask, no progress bars, no second cache beside ours."""
    disable_progress_bars()
    # The other way of transfer keeps a cache of its own, of which neither size nor place follow our settings.
    constants.HF_HUB_DISABLE_XET = True
    huggingface_hub.set_client_factory(_open)


@contextmanager
def asking(may_go_on: Callable[[], None]) -> Iterator[None]:
    """Call `may_go_on`, which raises to end the reading, before each piece that this thread receives."""
    token = _may_go_on.set(may_go_on)
    try:
        yield
    finally:
        _may_go_on.reset(token)


def _open() -> httpx.Client:
    return httpx.Client(
        event_hooks={"request": [lambda _: _ask()], "response": [_wrap]},
        follow_redirects=True,
        timeout=httpx.Timeout(SILENCE_SECONDS, connect=CONNECT_SECONDS),
    )


def _wrap(response: httpx.Response) -> None:
    if isinstance(response.stream, httpx.SyncByteStream):
        response.stream = _AskingStream(response.stream)


def _ask() -> None:
    may_go_on = _may_go_on.get()
    if may_go_on is not None:
        may_go_on()
