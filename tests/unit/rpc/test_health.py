"""What the health check of a container says of a process that serves, one that does not, and none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

from quatrain.local.ports import free_port
from quatrain.rpc.health import main

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE = "quatrain.v1.RewardService"


@pytest.fixture
def servicer() -> health.HealthServicer:
    return health.HealthServicer()


@pytest.fixture
def address(servicer: health.HealthServicer) -> Iterator[str]:
    with ThreadPoolExecutor(2) as threads:
        server = grpc.server(threads)
        health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        yield f"127.0.0.1:{port}"
        server.stop(None).wait()


def test_a_process_that_serves(servicer: health.HealthServicer, address: str) -> None:
    servicer.set("", SERVING)
    servicer.set(SERVICE, SERVING)

    assert main([address]) == 0
    assert main([address, "--service", SERVICE]) == 0


def test_a_process_that_starts_or_ends(
    servicer: health.HealthServicer, address: str, capsys: pytest.CaptureFixture[str]
) -> None:
    servicer.set("", NOT_SERVING)

    assert main([address]) == 1
    assert f"the process at {address} is NOT_SERVING" in capsys.readouterr().err


def test_a_service_that_is_not_there(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([address, "--service", "quatrain.v1.None"]) == 1
    assert "NOT_FOUND" in capsys.readouterr().err


def test_no_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([f"127.0.0.1:{free_port()}", "--timeout", "0.2"]) == 1
    assert "gives no health" in capsys.readouterr().err


def test_no_address(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["50060"]) == 2
    assert "'50060'" in capsys.readouterr().err
