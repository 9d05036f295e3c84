"""The call guard, health, reflection and the life of a server, over real sockets."""

import asyncio
import contextlib
import gc
import json
import logging
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from prometheus_client import generate_latest
from tests.integration.rpc.servers import (
    SERVICE,
    Artifacts,
    Replica,
    address_of,
    artifact_stub,
    generate_of,
    generation_stub,
    run,
    serving,
)

from quatrain.config import ProcessConfig, ServerConfig
from quatrain.errors import FieldViolation, InvalidInput, Overloaded, Unavailable
from quatrain.rpc.client.channel import open_channel
from quatrain.rpc.errors import from_rpc_error
from quatrain.rpc.server import interceptors
from quatrain.rpc.server.server import run_server
from quatrain.telemetry.metrics import REGISTRY
from quatrain.v1 import artifact_pb2
from quatrain.v1 import generation_pb2 as pb

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return caught.value


def metadata_of(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    metadata: Any = error.trailing_metadata()
    return dict(metadata or ())


def test_a_unary_call_without_deadline_is_refused_between_services() -> None:
    async def work() -> None:
        replica = Replica()
        async with serving(replica) as server, open_channel(address_of(server), service=SERVICE) as channel:
            error = await failure(generate_of(channel)(pb.GenerateRequest()))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "needs a deadline" in (error.details() or "")
            assert replica.calls == 0

    run(work)


def test_a_public_server_sets_a_deadline_where_there_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interceptors, "PUBLIC_DEADLINE_SECONDS", 0.2)

    async def work() -> None:
        async def slow(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            await asyncio.sleep(5)
            return pb.GenerateResponse()

        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(Replica(slow), public=True))
            channel = await stack.enter_async_context(open_channel(address_of(server), service=SERVICE))
            error = await failure(generate_of(channel)(pb.GenerateRequest()))
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            assert "longer than 0.2 s" in (error.details() or "")

    run(work)


def test_the_request_id_comes_back_with_answers_and_errors() -> None:
    async def work() -> None:
        async def refuse(request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            if request.job == "":
                raise InvalidInput("job is missing", [FieldViolation("job", "required")])
            return pb.GenerateResponse()

        async with serving(Replica(refuse)) as server, open_channel(address_of(server), service=SERVICE) as channel:
            call = generate_of(channel)(pb.GenerateRequest(job="j"), timeout=2, metadata=(("x-request-id", "r-1"),))
            await call
            assert dict(await call.trailing_metadata())["x-request-id"] == "r-1"

            error = await failure(
                generate_of(channel)(pb.GenerateRequest(), timeout=2, metadata=(("x-request-id", "r-2"),))
            )
            assert metadata_of(error)["x-request-id"] == "r-2"
            mapped = from_rpc_error(error, service="generation", target=address_of(server))
            assert isinstance(mapped, InvalidInput)
            assert mapped.violations == (FieldViolation("job", "required"),)
            assert mapped.message == f"generation at {address_of(server)}: job is missing"

            error = await failure(generate_of(channel)(pb.GenerateRequest(), timeout=2))
            assert len(metadata_of(error)["x-request-id"]) == 32

    run(work)


def test_an_unforeseen_failure_is_logged_and_blank(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        async def fail(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            raise ValueError("the secret path /home/someone")

        async with serving(Replica(fail)) as server, open_channel(address_of(server), service=SERVICE) as channel:
            error = await failure(
                generate_of(channel)(pb.GenerateRequest(), timeout=2, metadata=(("x-request-id", "r-3"),))
            )
            assert error.code() is grpc.StatusCode.INTERNAL
            assert "secret" not in repr(error)
            assert "r-3" in (error.details() or "")

    run(work)
    assert "the secret path" in caplog.text
    assert "r-3" in caplog.text


def test_what_is_not_built_and_what_is_not_served_say_so() -> None:
    async def work() -> None:
        async with serving(Replica()) as server, open_channel(address_of(server), service=SERVICE) as channel:
            stub = generation_stub(channel)
            error = await failure(stub.GetGenerationCapabilities(pb.GetGenerationCapabilitiesRequest(), timeout=2))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "GetGenerationCapabilities is in the contract" in (error.details() or "")

            artifacts = artifact_stub(channel)
            error = await failure(artifacts.GetUpload(artifact_pb2.GetUploadRequest(), timeout=2))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED
            assert f"it serves {SERVICE}" in (error.details() or "")

    run(work)


def test_streams_need_no_deadline_and_their_errors_are_mapped() -> None:
    async def work() -> None:
        async with serving(Artifacts()) as server, open_channel(address_of(server), service="") as channel:
            stub = artifact_stub(channel)
            await stub.Upload(iter([artifact_pb2.UploadRequest()]))
            error = await failure(stub.Upload(iter([artifact_pb2.UploadRequest()] * 3)))
            assert (error.code(), error.details()) == (grpc.StatusCode.INVALID_ARGUMENT, "more than two parts")

            received = []
            call = stub.Download(artifact_pb2.DownloadRequest())
            for _ in range(3):
                received.append(await call.read())
            mapped = from_rpc_error(await failure(call.read()), service="api", target="x")
            assert all(isinstance(message, artifact_pb2.DownloadResponse) for message in received)
            assert isinstance(mapped, Overloaded)
            assert mapped.retry_after == 2.0

    run(work)


def test_a_stream_that_the_client_leaves_ends_its_handler() -> None:
    async def work() -> None:
        servicer = Artifacts()
        async with serving(servicer) as server, open_channel(address_of(server), service="") as channel:
            call = artifact_stub(channel).Download(artifact_pb2.DownloadRequest(uri="wait"))
            await call.read()
            call.cancel()
            await asyncio.wait_for(servicer.ended.wait(), 5.0)

    run(work)


def test_a_stream_left_in_the_middle_of_a_write_leaves_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        servicer = Artifacts()
        async with serving(servicer) as server, open_channel(address_of(server), service="") as channel:
            call = artifact_stub(channel).Download(artifact_pb2.DownloadRequest(uri="flood"))
            await call.read()
            await asyncio.sleep(0.2)
            call.cancel()
            await asyncio.wait_for(servicer.ended.wait(), 5.0)
            gc.collect()
            await asyncio.sleep(0.05)

    run(work)
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_connections_age_does_not_end_a_stream() -> None:
    async def work() -> None:
        servicer = Artifacts()
        config = ServerConfig(shutdown_grace=0.0, max_connection_age=0.3)
        async with serving(servicer, config) as server, open_channel(address_of(server), service="") as channel:
            stub = artifact_stub(channel)
            call = stub.Download(artifact_pb2.DownloadRequest(uri="wait"))
            for _ in range(3):
                await call.read()
            for _ in range(10):
                await asyncio.sleep(0.1)
                await stub.Upload(iter([artifact_pb2.UploadRequest()]), timeout=2)
            assert not call.done()
            assert not servicer.ended.is_set()
            call.cancel()

    run(work)


def test_health_follows_the_servers_life_and_calls_wait_for_it() -> None:
    async def work() -> None:
        config = ServerConfig(health_port=0, shutdown_grace=0.0)

        async def status(port: int | None, service: str) -> int:
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                request = health_pb2.HealthCheckRequest(service=service)
                return int((await health_pb2_grpc.HealthStub(channel).Check(request, timeout=2)).status)

        async with contextlib.AsyncExitStack() as stack:
            server = await stack.enter_async_context(serving(Replica(), config, ready=False))
            channel = await stack.enter_async_context(open_channel(address_of(server), service=""))
            for port in (server.ports.port, server.ports.health_port):
                assert [await status(port, service) for service in ("", SERVICE)] == [NOT_SERVING, NOT_SERVING]
            error = await failure(generate_of(channel)(pb.GenerateRequest(), timeout=2))
            assert (error.code(), error.details()) == (
                grpc.StatusCode.UNAVAILABLE,
                "generation takes no calls: it is starting",
            )
            await server.serve()
            await generate_of(channel)(pb.GenerateRequest(), timeout=2)
            for port in (server.ports.port, server.ports.health_port):
                assert [await status(port, service) for service in ("", SERVICE)] == [SERVING, SERVING]
            await server.refuse()
            assert await status(server.ports.health_port, SERVICE) == NOT_SERVING
            error = await failure(generate_of(channel)(pb.GenerateRequest(), timeout=2))
            assert "it is stopping" in (error.details() or "")

    run(work)


def test_reflection_lists_and_describes_the_services() -> None:
    async def work() -> None:
        async with serving(Replica()) as server, grpc.aio.insecure_channel(address_of(server)) as channel:
            stub = reflection_pb2_grpc.ServerReflectionStub(channel)
            requests = [
                reflection_pb2.ServerReflectionRequest(list_services=""),
                reflection_pb2.ServerReflectionRequest(file_containing_symbol=SERVICE),
            ]
            answers = [answer async for answer in stub.ServerReflectionInfo(iter(requests))]
            names = {service.name for service in answers[0].list_services_response.service}
            assert {SERVICE, "grpc.health.v1.Health"} <= names
            assert answers[1].file_descriptor_response.file_descriptor_proto

    run(work)


def test_a_message_that_is_too_large_is_no_overload() -> None:
    async def work() -> None:
        config = ServerConfig(max_message_mib=1, shutdown_grace=0.0)
        async with serving(Replica(), config) as server, open_channel(address_of(server), service=SERVICE) as channel:
            request = pb.GenerateRequest()
            request.prompt_ids.values = bytes(2 * 2**20)
            error = await failure(generate_of(channel)(request, timeout=2))
            mapped = from_rpc_error(error, service="generation", target="x")
            assert isinstance(mapped, InvalidInput)
            assert "larger than max" in mapped.message

    run(work)


def test_an_error_with_many_violations_still_arrives() -> None:
    async def work() -> None:
        async def refuse(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            raise InvalidInput("wrong " * 5000, [FieldViolation(f"a.{i}", "wrong " * 20) for i in range(500)])

        async with serving(Replica(refuse)) as server, open_channel(address_of(server), service=SERVICE) as channel:
            error = await failure(generate_of(channel)(pb.GenerateRequest(), timeout=2))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert isinstance(from_rpc_error(error, service="s", target="t"), InvalidInput)

    run(work)


def test_calls_are_counted_by_method_and_status() -> None:
    async def work() -> None:
        async with serving(Replica()) as server, open_channel(address_of(server), service=SERVICE) as channel:
            await generate_of(channel)(pb.GenerateRequest(), timeout=2)
            await failure(generate_of(channel)(pb.GenerateRequest()))

    run(work)
    text = generate_latest(REGISTRY).decode()
    for code in ("OK", "INVALID_ARGUMENT"):
        line = f'quatrain_rpc_handled_total{{code="{code}",method="Generate",service="{SERVICE}"}}'
        assert line in text
    assert f'quatrain_rpc_in_flight{{method="Generate",service="{SERVICE}"}} 0.0' in text


def test_a_server_runs_from_warm_up_to_drain(tmp_path: Path) -> None:
    async def work() -> None:
        events: list[str] = []
        port_file = tmp_path / "run" / "generation.json"
        server = ServerConfig(port_file=port_file, health_port=0, metrics_port=0, shutdown_grace=5.0)
        begun, release = asyncio.Event(), asyncio.Event()

        async def wait(_request: pb.GenerateRequest, _context: Any) -> pb.GenerateResponse:
            events.append("begun")
            begun.set()
            await release.wait()
            events.append("finished")
            return pb.GenerateResponse()

        async def warm_up() -> None:
            events.append(f"warm, {port_file.exists()}")

        async def drain() -> None:
            events.append("drain")
            release.set()

        stop = asyncio.Event()
        life = asyncio.create_task(
            run_server(
                ProcessConfig(server=server),
                "generation",
                Replica(wait).register,
                on_ready=warm_up,
                on_drain=drain,
                stop=stop,
            )
        )
        while not port_file.exists():  # noqa: ASYNC110 - a file has no event
            await asyncio.sleep(0.01)
        ports = json.loads(port_file.read_text())
        assert set(ports) == {"port", "health_port", "metrics_port"}
        async with open_channel(f"127.0.0.1:{ports['port']}", service=SERVICE) as channel:
            call = asyncio.ensure_future(generate_of(channel)(pb.GenerateRequest(), timeout=5))
            await begun.wait()
            stop.set()
            await call
        await life
        assert events == ["warm, False", "begun", "drain", "finished"]
        assert not port_file.exists()

    run(work)


def test_a_failing_warm_up_and_a_taken_port_end_the_server() -> None:
    async def work() -> None:
        async def warm_up() -> None:
            raise Unavailable("the store does not answer")

        with pytest.raises(Unavailable, match="the store does not answer"):
            await run_server(ProcessConfig(), "generation", Replica().register, on_ready=warm_up)
        async with serving(Replica()) as server:
            taken = ProcessConfig(server=ServerConfig(port=server.ports.port))
            with pytest.raises(Unavailable, match=r"generation cannot bind 127.0.0.1:\d+"):
                await run_server(taken, "generation", Replica().register)

    run(work)


def test_stopping_during_warm_up_ends_it() -> None:
    async def work() -> None:
        stop = asyncio.Event()

        async def warm_up() -> None:
            stop.set()
            await asyncio.sleep(60)

        await run_server(ProcessConfig(), "generation", Replica().register, on_ready=warm_up, stop=stop)

    run(work)


def test_a_server_ends_with_the_error_of_its_own_work() -> None:
    async def work() -> None:
        async def fail() -> None:
            await asyncio.sleep(0.05)
            raise Unavailable("the queue was wiped")

        working = asyncio.create_task(fail())
        with pytest.raises(Unavailable, match="the queue was wiped"):
            await run_server(ProcessConfig(), "rollout", lambda _server: [], working=working)

    run(work)
