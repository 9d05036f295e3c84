"""Every replica of every service says SERVING. Arguments: HEALTH_NAME=HOST, the process's health port being 50060."""

import socket
import sys
import time

from quatrain.errors import Unavailable
from quatrain.rpc.health import check_health

PORT = 50060
SECONDS = 10.0
# DNS caches stale answers for some seconds: that a name has no address though its first pod has just become ready, and
# the address of a pod that an upgrade has just removed.
SETTLED_SECONDS = 40.0
# The rollout worker serves no calls; its health is that of the process.
NAMELESS = "rollout"


def check(name: str, address: str) -> str:
    """Return what is wrong with one replica."""
    at = f"[{address}]" if ":" in address else address
    try:
        check_health(f"{at}:{PORT}", "" if name == NAMELESS else name, SECONDS)
    except Unavailable as error:
        return error.message
    return ""


def check_all(name: str, host: str) -> dict[str, str]:
    """Return what is wrong with each replica of a service."""
    try:
        found = {str(info[4][0]) for info in socket.getaddrinfo(host, PORT, type=socket.SOCK_STREAM)}
    except socket.gaierror as error:
        return {host: f"no replica is ready ({error.strerror})"}
    return {address: check(name, address) for address in sorted(found)}


def main(services: list[str]) -> int:
    """Return 0 when all serve."""
    good = True
    until = time.monotonic() + SETTLED_SECONDS
    for service in services:
        name, _, host = service.partition("=")
        while any((wrong := check_all(name, host)).values()) and time.monotonic() < until:
            time.sleep(1.0)
        for address, words in wrong.items():
            print(f"{name} {address}: {words or 'SERVING'}")
        good &= not any(wrong.values())
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
