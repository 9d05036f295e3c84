"""One channel to the API: TLS and bearer token, request ids, deadlines, and errors as `quatrain.errors`."""

import contextlib
import uuid
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import grpc.aio

from quatrain.errors import InvalidInput, QuatrainError
from quatrain.rpc.addresses import is_loopback
from quatrain.rpc.certificates import CertificateFiles, Certificates, ChannelTls
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.streams import LOST_AFTER_SECONDS, watched
from quatrain.v1 import artifact_pb2_grpc, job_pb2_grpc

SERVICE = "the Quatrain API"
REQUEST_ID = "x-request-id"
# Deadlines of a usual call, and of one that checks and copies data and models before it answers. The second is a day,
# because the server bounds each read and write of a store by its progress, and keepalive notices a lost server.
CALL_SECONDS = 30.0
CHECK_SECONDS = 24 * 3600.0

HTTPS = "https://"
HTTP = "http://"
HTTPS_PORT = 443

T = TypeVar("T")


@dataclass(frozen=True)
class Credentials:
    """What a client shows to the server, and what it checks the server against.

    `certificates`: PEM files, the `ca` that the API's certificate is checked against and, where the API asks for one,
    the client's own certificate and key. `insecure`: the token is sent in plaintext to other machines, too.
    """

    token: str | None = field(default=None, repr=False)
    certificates: CertificateFiles | None = None
    insecure: bool = False


class Connection:
    """The channel and what every call on it shares. Every error carries its call's request id as a note."""

    def __init__(self, target: str, credentials: Credentials) -> None:
        """Open the channel to `target`: `host:port` or `http://host:port` for plaintext, or `https://host[:port]`.

        Raises InvalidInput when the token would travel in plaintext to another machine, and for malformed tokens and
        certificates.
        """
        self.target = target
        self._token = credentials.token
        address, tls = _transport(target, credentials)
        if self._token:
            _check_token(self._token, target, address, plaintext=tls is None and not credentials.insecure)
        self._channel = open_channel(address, service="quatrain.v1.JobService", tls=tls)
        self.jobs: Any = job_pb2_grpc.JobServiceStub(self._channel)
        self.artifacts: Any = artifact_pb2_grpc.ArtifactServiceStub(self._channel)

    async def call(self, method: Any, request: Any, *, timeout: float = CALL_SECONDS) -> Any:
        """Return the answer of a call. `request` is a message, or an async iterator of messages."""
        request_id = new_request_id()
        with noted(request_id):
            try:
                return await method(request, timeout=timeout, metadata=self._metadata(request_id))
            except grpc.aio.AioRpcError as error:
                raise from_rpc_error(error, service=SERVICE, target=self.target) from error

    async def stream(
        self, method: Any, request: Any, *, lost_after: float = LOST_AFTER_SECONDS
    ) -> AsyncGenerator[Any, None]:
        """Yield the answers of a stream. Raises Unavailable when nothing comes for `lost_after` seconds."""
        request_id = new_request_id()
        with noted(request_id):
            stream = method(request, metadata=self._metadata(request_id))
            async with contextlib.aclosing(
                watched(stream, lost_after, service=SERVICE, target=self.target)
            ) as messages:
                async for message in messages:
                    yield message

    async def close(self) -> None:
        """End the channel and the calls on it."""
        await self._channel.close(None)

    def _metadata(self, request_id: str) -> tuple[tuple[str, str], ...]:
        authorization = (("authorization", f"Bearer {self._token}"),) if self._token else ()
        return ((REQUEST_ID, request_id), *authorization)


def _transport(target: str, credentials: Credentials) -> tuple[str, ChannelTls | None]:
    """Return the address without its scheme, and its TLS."""
    if target.startswith(HTTPS):
        address = target.removeprefix(HTTPS).rstrip("/")
        if not address.rpartition(":")[2].isdigit():
            address = f"{address}:{HTTPS_PORT}"
        return address, ChannelTls(Certificates(credentials.certificates or CertificateFiles()))
    return target.removeprefix(HTTP).rstrip("/"), None


def _check_token(token: str, target: str, address: str, *, plaintext: bool) -> None:
    """Raise InvalidInput for a token that cannot be sent. Unlike gRPC's own message, ours does not show the token."""
    if not (token.isascii() and token.isprintable()) or " " in token:
        raise InvalidInput("the token has characters that no token has; look at QUATRAIN_TOKEN or the token file")
    others = [part for part in address.split(",") if not is_loopback(part.strip().rpartition(":")[0])]
    if plaintext and others:
        raise InvalidInput(
            f"the token is not sent to {target} in plaintext, where others could read it: use https://, or allow it "
            "with QUATRAIN_INSECURE=1 where the network itself is closed",
            reason="TOKEN_IN_PLAINTEXT",
        )


def new_request_id() -> str:
    """Return a fresh id for a call or a submission."""
    return uuid.uuid4().hex


@contextlib.contextmanager
def noted(request_id: str) -> Iterator[None]:
    """Add the request id to errors, so that a person can look the call up in the server's log."""
    try:
        yield
    except QuatrainError as error:
        error.add_note(f"request id: {request_id}")
        raise
