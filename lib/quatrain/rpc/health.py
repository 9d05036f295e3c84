"""Health check of a process from within its container: `python -m quatrain.rpc.health [--service NAME] HOST:PORT`.

Asks the plaintext health port (`server.health_port`). The exit code is 0 when the process serves, 1 when it does not,
with the reason on stderr, and 2 where the command itself is wrong.
"""

import argparse
import sys
from collections.abc import Sequence

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from quatrain.errors import InvalidInput, Unavailable
from quatrain.rpc.addresses import check_address

DEADLINE_SECONDS = 4.0


def check_health(address: str, service: str = "", timeout: float = DEADLINE_SECONDS) -> None:
    """Check that the service says SERVING; an empty name means the whole process.

    Raises Unavailable when it says anything else or does not answer within `timeout` seconds, InvalidInput when
    `address` is no host:port.
    """
    check_address(address, address)
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=service), timeout=timeout, wait_for_ready=True
            )
        except grpc.RpcError as error:
            raise Unavailable(f"{address} gives no health: {error.code().name} {error.details()}") from error
    if answer.status != health_pb2.HealthCheckResponse.SERVING:
        status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
        raise Unavailable(f"{service or 'the process'} at {address} is {status}")


def main(argv: Sequence[str] | None = None) -> int:
    """Ask for health and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m quatrain.rpc.health", description="Asks a process for its health.")
    parser.add_argument("address", metavar="HOST:PORT", help="its plaintext health port")
    parser.add_argument("--service", default="", help="full name of a gRPC service; by default the whole process")
    parser.add_argument("--timeout", type=float, default=DEADLINE_SECONDS, help="seconds")
    options = parser.parse_args(argv)
    try:
        check_health(options.address, options.service, options.timeout)
    except Unavailable as error:
        print(error.message, file=sys.stderr)
        return 1
    except InvalidInput as error:
        print(error.message, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
