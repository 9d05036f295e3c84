"""Tokens and roles at a public server, over real sockets."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from tests.integration.rpc.servers import Artifacts, address_of, artifact_stub, run

from quatrain.config import ServerConfig
from quatrain.errors import PermissionRefused, Unauthenticated
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.server.access import Access, Role, caller
from quatrain.rpc.server.server import RpcServer
from quatrain.rpc.server.tokens import TokenFile, line_of, new_token
from quatrain.v1 import artifact_pb2 as pb

UPLOAD, DOWNLOAD = (f"/quatrain.v1.ArtifactService/{name}" for name in ("Upload", "Download"))
ROLES = {UPLOAD: Role.SUBMITTER, DOWNLOAD: Role.VIEWER}
VIEWER, VIEWER_LINE = new_token("bo", "viewer")
SUBMITTER, SUBMITTER_LINE = new_token("ana", "submitter")
PLANTED = "qt_planted-secret-that-nobody-may-see"


class Callers(Artifacts):
    """Remembers who called; streams until the caller goes."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[str] = []

    async def Upload(self, requests: AsyncIterator[Any], context: Any) -> pb.UploadResponse:
        self.seen.append(caller().name)
        return await super().Upload(requests, context)

    async def Download(self, request: Any, context: Any) -> AsyncIterator[pb.DownloadResponse]:
        self.seen.append(await asyncio.to_thread(lambda: caller().name))
        while True:
            yield pb.DownloadResponse()
            await asyncio.sleep(0.01)


class Secured:
    """A public server with a file of tokens, and calls to it."""

    def __init__(self, servicer: Callers, server: RpcServer, channel: grpc.aio.Channel, tokens: Path) -> None:
        self.servicer = servicer
        self.server = server
        self.channel = channel
        self.tokens = tokens

    async def upload(self, *tokens: str, scheme: str = "Bearer") -> None:
        metadata = [("authorization", f"{scheme} {token}") for token in tokens]
        with _ours():
            await artifact_stub(self.channel).Upload(iter([pb.UploadRequest()]), timeout=10.0, metadata=metadata)

    def download(self, token: str) -> Any:
        metadata = (("authorization", f"Bearer {token}"),)
        return artifact_stub(self.channel).Download(pb.DownloadRequest(), timeout=30.0, metadata=metadata)


@contextlib.contextmanager
def _ours() -> Any:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service="api", target="here") from error


@contextlib.asynccontextmanager
async def secured(tmp_path: Path, roles: dict[str, Role] | None = None) -> AsyncIterator[Secured]:
    tokens = tmp_path / "tokens.yaml"
    tokens.write_text(f"{line_of(VIEWER_LINE)}\n{line_of(SUBMITTER_LINE)}\n")
    servicer = Callers()
    access = Access(ROLES if roles is None else roles, TokenFile(tokens, every=0.0))
    server = RpcServer(ServerConfig(shutdown_grace=0.0), "api", servicer.register, public=True, access=access)
    await server.start()
    try:
        await server.serve()
        async with grpc.aio.insecure_channel(address_of(server)) as channel:
            yield Secured(servicer, server, channel, tokens)
    finally:
        await server.stop()


def test_a_valid_token_names_its_caller(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            await api.upload(SUBMITTER)
            stream = api.download(VIEWER)
            await stream.read()
            stream.cancel()
            assert api.servicer.seen == ["ana", "bo"]

    run(work)


@pytest.mark.parametrize("tokens", [(), (PLANTED,), ("",), (SUBMITTER, SUBMITTER), (SUBMITTER.swapcase(),)])
def test_without_a_valid_token_nothing_is_called(
    tmp_path: Path, tokens: tuple[str, ...], caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            with pytest.raises(Unauthenticated) as caught:
                await api.upload(*tokens)
            assert api.servicer.seen == []
            assert PLANTED not in str(caught.value)

    with caplog.at_level(logging.DEBUG):
        run(work)
    assert "call refused" in caplog.text
    for secret in (PLANTED, SUBMITTER, SUBMITTER_LINE["sha256"]):
        assert secret not in caplog.text


def test_other_schemes_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            with pytest.raises(Unauthenticated, match="Bearer TOKEN"):
                await api.upload(SUBMITTER, scheme="Basic")

    run(work)


def test_a_role_too_low_and_a_method_without_a_role_are_refused(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            with pytest.raises(PermissionRefused, match="Upload needs the role submitter"):
                await api.upload(VIEWER)
        async with secured(tmp_path, {DOWNLOAD: Role.VIEWER}) as api:
            with pytest.raises(PermissionRefused, match="open to nobody"):
                await api.upload(SUBMITTER)
            assert api.servicer.seen == []

    run(work)


def test_what_is_not_served_is_told_only_to_known_callers(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            method = api.channel.unary_unary("/quatrain.v1.Secret/Get", None, None)
            for token, code in ((PLANTED, grpc.StatusCode.UNAUTHENTICATED), (VIEWER, grpc.StatusCode.UNIMPLEMENTED)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(b"", timeout=10.0, metadata=(("authorization", f"Bearer {token}"),))
                assert caught.value.code() is code
                assert ("ArtifactService" in str(caught.value.details())) is (token == VIEWER)

    run(work)


def test_health_is_free_and_reflection_needs_a_token(tmp_path: Path) -> None:
    async def reflect(api: Secured, *metadata: tuple[str, str]) -> Any:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(api.channel)
        request = reflection_pb2.ServerReflectionRequest(list_services="")
        call = stub.ServerReflectionInfo(iter([request]), timeout=10.0, metadata=metadata)
        return [message async for message in call]

    async def work() -> None:
        async with secured(tmp_path) as api:
            health: Any = health_pb2_grpc.HealthStub(api.channel)
            answer = await health.Check(health_pb2.HealthCheckRequest(), timeout=10.0)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
            assert await reflect(api, ("authorization", f"Bearer {VIEWER}"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await reflect(api)
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED

    run(work)


def test_an_upload_ends_when_its_token_is_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            metadata = (("authorization", f"Bearer {SUBMITTER}"),)
            upload = artifact_stub(api.channel).Upload(timeout=30.0, metadata=metadata)
            await upload.write(pb.UploadRequest())
            while not api.servicer.seen:  # noqa: ASYNC110 - nothing tells
                await asyncio.sleep(0.01)
            api.tokens.write_text(line_of(VIEWER_LINE))
            await upload.write(pb.UploadRequest())
            with pytest.raises(Unauthenticated), _ours():
                await upload

    run(work, limit=60.0)


async def drain(stream: Any) -> None:
    while await stream.read():
        pass


def test_a_stream_ends_when_its_token_is_taken_back(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            stream = api.download(VIEWER)
            await stream.read()
            api.tokens.write_text(line_of(SUBMITTER_LINE))
            with pytest.raises(Unauthenticated), _ours():
                await drain(stream)

    run(work, limit=60.0)


def test_a_refused_call_is_not_parsed_and_bytes_that_are_no_message_are_the_callers_error(tmp_path: Path) -> None:
    async def work() -> None:
        async with secured(tmp_path) as api:
            method = api.channel.unary_stream(DOWNLOAD, None, None)
            garbage = bytes(range(256))
            for token, code in ((PLANTED, grpc.StatusCode.UNAUTHENTICATED), (VIEWER, grpc.StatusCode.INVALID_ARGUMENT)):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await method(garbage, timeout=10.0, metadata=(("authorization", f"Bearer {token}"),)).read()
                assert caught.value.code() is code

    run(work)
