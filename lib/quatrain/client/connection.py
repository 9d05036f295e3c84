"""One channel to the API: request ids, deadlines, bearer token, and errors as `quatrain.errors`."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterator
from typing import Any, TypeVar

import grpc.aio

from quatrain.errors import QuatrainError
from quatrain.rpc.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import LOST_AFTER_SECONDS, watched
from quatrain.v1 import artifact_pb2_grpc, job_pb2_grpc

SERVICE = "the Quatrain API"
REQUEST_ID = "x-request-id"
# A usual call; and one that checks data, models and reward functions before it answers.
CALL_SECONDS = 30.0
CHECK_SECONDS = 600.0

T = TypeVar("T")


class Connection:
    """The channel and what every call on it shares. Every error carries its call's request id as a note."""

    def __init__(self, target: str, token: str | None) -> None:
        self.target = target
        self._token = token
        self._channel = open_channel(target, service="quatrain.v1.JobService")
        self.jobs: Any = job_pb2_grpc.JobServiceStub(self._channel)
        self.artifacts: Any = artifact_pb2_grpc.ArtifactServiceStub(self._channel)

    async def call(self, method: Any, request: Any, *, timeout: float = CALL_SECONDS) -> Any:
        """A call with one answer. `request` is a message, or an async iterator of messages."""
        request_id = new_request_id()
        with noted(request_id):
            try:
                return await method(request, timeout=timeout, metadata=self._metadata(request_id))
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, service=SERVICE, target=self.target) from error

    async def stream(
        self, method: Any, request: Any, *, lost_after: float = LOST_AFTER_SECONDS, timeout: float | None = None
    ) -> AsyncGenerator[Any, None]:
        """The answers of a stream. Raises Unavailable when nothing comes for `lost_after` seconds."""
        request_id = new_request_id()
        with noted(request_id):
            stream = method(request, timeout=timeout, metadata=self._metadata(request_id))
            async with contextlib.aclosing(
                watched(stream, lost_after, service=SERVICE, target=self.target)
            ) as messages:
                async for message in messages:
                    yield message

    async def close(self) -> None:
        """Ends the channel and the calls on it."""
        await self._channel.close(None)

    def _metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        authorization = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        return ((REQUEST_ID, request_id), *authorization)


def new_request_id() -> str:
    """A fresh id of a call or of a submission."""
    return uuid.uuid4().hex


@contextlib.contextmanager
def noted(request_id: str) -> Iterator[None]:
    """Adds the request id to errors, so that a person can look the call up in the server's log."""
    try:
        yield
    except QuatrainError as error:
        error.add_note(f"request id: {request_id}")
        raise
