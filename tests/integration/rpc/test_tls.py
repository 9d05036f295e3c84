"""TLS with real certificates on real sockets: who may connect, and certificates that change under running calls."""

import asyncio
import contextlib
import gc
import logging
import weakref
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from tests.integration.rpc.servers import SERVICE, Replica, address_of, generate_of, generation_stub, run
from tests.servers.certificates import Authority, MountedSecret

from quatrain.config import ServerConfig
from quatrain.errors import InvalidInput, Unavailable
from quatrain.rpc.certificates import CertificateFiles, Certificates, ChannelTls, ServerTls
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.client.targets import PoolOptions, TargetPool
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.server.server import RpcServer
from quatrain.v1 import generation_pb2 as pb

CONFIG = ServerConfig(shutdown_grace=0.0, health_port=0)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority.make(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority that nobody has reason to trust."""
    return Authority.make(tmp_path_factory.mktemp("stranger"), "stranger")


@contextlib.asynccontextmanager
async def serving(
    replica: Replica, files: CertificateFiles, *, require_client: bool = True
) -> AsyncIterator[RpcServer]:
    tls = ServerTls(Certificates(files, every=0.0), require_client)
    server = RpcServer(CONFIG, "generation", replica.register, tls=tls)
    await server.start()
    try:
        await server.serve()
        yield server
    finally:
        await server.stop()


def tls_of(files: CertificateFiles, server_name: str = "quatrain") -> ChannelTls:
    return ChannelTls(Certificates(files, every=0.0), server_name)


async def generate(address: str, tls: ChannelTls | None) -> None:
    async with open_channel(address, service="", tls=tls) as channel:
        try:
            await generate_of(channel)(pb.GenerateRequest(), timeout=20.0)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, service="generation", target=address) from error


async def arrived(replica: Replica, calls: int) -> None:
    while replica.calls < calls:  # noqa: ASYNC110 - nothing tells
        await asyncio.sleep(0.01)


async def refused(address: str, tls: ChannelTls | None) -> bool:
    """Whether no connection comes about, with a message that says what may be missing."""
    try:
        await generate(address, tls)
    except Unavailable as error:
        return "certificate" in error.message
    return False


def test_services_know_each_other_by_certificates(authority: Authority) -> None:
    async def work() -> None:
        replica = Replica()
        async with serving(replica, authority.issue("server")) as server:
            options = PoolOptions(tls=tls_of(authority.issue("client")))
            await generate(address_of(server), options.tls)
            async with TargetPool(address_of(server), service=SERVICE, options=options) as pool:
                await pool.call(generate_of, pb.GenerateRequest(), timeout=20.0)
        assert replica.calls == 2

    run(work, limit=60.0)


def test_a_client_that_is_not_of_the_authority_is_refused(authority: Authority, stranger: Authority) -> None:
    other, expired = stranger.issue("intruder"), authority.issue("expired", days=-1)
    strangers = {
        "no certificate": tls_of(CertificateFiles(ca=authority.ca)),
        "another authority's": tls_of(CertificateFiles(other.cert, other.key, authority.ca)),
        "expired": tls_of(expired),
        "plaintext": None,
    }

    async def work() -> None:
        replica = Replica()
        async with serving(replica, authority.issue("server")) as server:
            for name, tls in strangers.items():
                assert await refused(address_of(server), tls), name
        assert replica.calls == 0

    run(work, limit=60.0)


def test_a_server_that_is_not_of_the_authority_is_not_talked_to(authority: Authority, stranger: Authority) -> None:
    async def work() -> None:
        replica = Replica()
        client = authority.issue("client")
        async with serving(replica, stranger.issue("server"), require_client=False) as server:
            with pytest.raises(Unavailable, match="its certificate is not one of the trusted authorities'"):
                await generate(address_of(server), tls_of(client))
        async with serving(replica, authority.issue("old", days=-1), require_client=False) as server:
            with pytest.raises(Unavailable, match="has expired"):
                await generate(address_of(server), tls_of(client))
        async with serving(replica, authority.issue("server")) as server:
            with pytest.raises(Unavailable, match="not made out to this name"):
                await generate(address_of(server), tls_of(client, "other-deployment"))
            await generate(address_of(server), tls_of(client, ""))
        assert replica.calls == 1

    run(work, limit=60.0)


def test_probes_need_no_certificate(authority: Authority) -> None:
    async def work() -> None:
        async with serving(Replica(), authority.issue("server")) as server:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{server.ports.health_port}") as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                answer = await stub.Check(health_pb2.HealthCheckRequest(service=SERVICE), timeout=20.0)
            assert answer.status == health_pb2.HealthCheckResponse.SERVING

    run(work, limit=60.0)


def test_certificates_of_both_sides_change_under_running_calls(
    authority: Authority, stranger: Authority, tmp_path: Path
) -> None:
    """First the server's certificate, then the whole authority: a call in work survives both."""

    async def work() -> None:
        release = asyncio.Event()

        async def answer(request: pb.GenerateRequest, context: Any) -> pb.GenerateResponse:
            if request.job == "long":
                await release.wait()
            return pb.GenerateResponse()

        server_secret, client_secret = MountedSecret(tmp_path / "server"), MountedSecret(tmp_path / "client")
        server_secret.put_certificate(authority.issue("server-1"))
        client_secret.put_certificate(authority.issue("client-1"))
        replica = Replica(answer)
        async with serving(replica, server_secret.files) as server:
            address = address_of(server)
            tls = tls_of(client_secret.files)
            async with open_channel(address, service=SERVICE, tls=tls) as channel:
                long = generation_stub(channel).Generate(pb.GenerateRequest(job="long"), timeout=60.0)
                await arrived(replica, 1)
                assert not await refused(address, tls_of(authority.issue("old-friend")))

                server_secret.put_certificate(stranger.issue("server-2"))
                client_secret.put_certificate(stranger.issue("client-2"))

                await generation_stub(channel).Generate(pb.GenerateRequest(), timeout=20.0)
                assert await refused(address, tls_of(authority.issue("old-friend")))
                assert not long.done()
                release.set()
                await long

    run(work, limit=60.0)


def test_a_pool_follows_the_change_of_certificates(authority: Authority, stranger: Authority, tmp_path: Path) -> None:
    async def work() -> None:
        server_secret, client_secret = MountedSecret(tmp_path / "server"), MountedSecret(tmp_path / "client")
        server_secret.put_certificate(authority.issue("server-1"))
        client_secret.put_certificate(authority.issue("client-1"))
        async with serving(Replica(), server_secret.files) as server:
            options = PoolOptions(tls=tls_of(client_secret.files))
            async with TargetPool(address_of(server), service=SERVICE, options=options) as pool:
                await pool.call(generate_of, pb.GenerateRequest(), timeout=20.0)
                server_secret.put_certificate(stranger.issue("server-2"))
                client_secret.put_certificate(stranger.issue("client-2"))
                for _ in range(3):
                    await pool.call(generate_of, pb.GenerateRequest(), timeout=20.0)

    run(work, limit=60.0)


def test_damaged_certificates_change_nothing_until_they_are_whole(
    authority: Authority, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        secret = MountedSecret(tmp_path / "server")
        secret.put_certificate(authority.issue("server-1"))
        client = tls_of(authority.issue("client"))
        async with serving(Replica(), secret.files) as server:
            other = authority.issue("server-2")
            assert other.key is not None
            secret.put({"tls.key": other.key, "tls.crt": secret.files.cert or "", "ca.crt": authority.ca})
            await generate(address_of(server), client)
            assert "stay in use" in caplog.text
            secret.put_certificate(other)
            await generate(address_of(server), client)

    with caplog.at_level(logging.ERROR):
        run(work, limit=60.0)
    assert "PRIVATE KEY" not in caplog.text


def test_what_is_no_certificate_is_refused_at_the_start(authority: Authority, tmp_path: Path) -> None:
    good, other = authority.issue("good"), authority.issue("other")
    text = tmp_path / "text"
    text.write_text("hello")
    wrong = {
        "no PEM certificate": [CertificateFiles(text, good.key), CertificateFiles(good.cert, other.key)],
        "no PEM certificates of authorities": [CertificateFiles(ca=text)],
        "cannot be read": [CertificateFiles(ca=tmp_path / "none")],
        "needs its key": [CertificateFiles(cert=good.cert)],
    }
    for message, cases in wrong.items():
        for files in cases:
            with pytest.raises(InvalidInput, match=message):
                Certificates(files)


def test_a_closed_channel_has_ended_its_connections(authority: Authority, tmp_path: Path) -> None:
    async def work() -> None:
        secret = MountedSecret(tmp_path / "client")
        secret.put_certificate(authority.issue("client-1"))
        replica = Replica(hang)
        async with serving(replica, authority.issue("server")) as server:
            channel = open_channel(address_of(server), service=SERVICE, tls=tls_of(secret.files))
            first = asyncio.ensure_future(_outcome(generate_of(channel)(pb.GenerateRequest(), timeout=50.0)))
            await arrived(replica, 1)
            secret.put_certificate(authority.issue("client-2"))
            second = asyncio.ensure_future(_outcome(generate_of(channel)(pb.GenerateRequest(), timeout=50.0)))
            await arrived(replica, 2)
            await channel.close(None)
            assert {await first, await second} == {"CANCELLED"}

    run(work, limit=60.0)


def test_a_call_leaves_nothing_to_the_collector(authority: Authority) -> None:
    """Millions of calls are made between services; one that only the collector frees also holds gRPC back at exit."""

    async def work() -> None:
        async with serving(Replica(), authority.issue("server")) as server:
            tls = tls_of(authority.issue("client"))
            async with open_channel(address_of(server), service=SERVICE, tls=tls) as channel:
                call = generate_of(channel)(pb.GenerateRequest(), timeout=20.0)
                await call
                trace = weakref.ref(call)
                del call
                await asyncio.sleep(0.05)
                assert trace() is None

    gc.disable()
    try:
        run(work, limit=60.0)
    finally:
        gc.enable()


async def hang(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
    await asyncio.sleep(60.0)
    return pb.GenerateResponse()


async def _outcome(call: Any) -> str:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code().name
    except asyncio.CancelledError:
        return "CANCELLED"
    return "OK"
