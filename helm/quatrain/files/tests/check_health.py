"""Every replica of every service says SERVING. Arguments: HEALTH_NAME=HOST, the process's health port being 50060."""

import socket
import sys
import time

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

PORT = 50060
SECONDS = 30.0
# DNS remembers for some seconds that a name had no address, though its first pod has just become ready.
LOOKUP_SECONDS = 20.0
# The rollout worker offers no service; its health is that of the process.
NAMELESS = "rollout"


def check(name: str, address: str) -> bool:
    """Prints what one replica says."""
    request = health_pb2.HealthCheckRequest(service="" if name == NAMELESS else name)
    with grpc.insecure_channel(f"{address}:{PORT}") as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=SECONDS, wait_for_ready=True)
        except grpc.RpcError as error:
            print(f"{name} {address}: {error.code().name} {error.details()}")
            return False
    status = health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)
    print(f"{name} {address}: {status}")
    return status == "SERVING"


def look_up(host: str, until: float) -> set[str]:
    """The addresses of the replicas; tried again until then."""
    while True:
        try:
            return {str(info[4][0]) for info in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)}
        except socket.gaierror:
            if time.monotonic() > until:
                raise
            time.sleep(1.0)


def main(services: list[str]) -> int:
    """0 when all serve."""
    good = True
    until = time.monotonic() + LOOKUP_SECONDS
    for service in services:
        name, _, host = service.partition("=")
        try:
            found = look_up(host, until)
        except socket.gaierror as error:
            print(f"{name} {host}: no replica is ready ({error.strerror})")
            good = False
            continue
        good &= all([check(name, f"[{address}]" if ":" in address else address) for address in sorted(found)])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
