"""Every replica of every service says SERVING. Arguments: HEALTH_NAME=HOST, the process's health port being 50060."""

import socket
import sys
import time

from quatrain.errors import Unavailable
from quatrain.rpc.health import check_health

PORT = 50060
SECONDS = 30.0
# DNS remembers for some seconds that a name had no address, though its first pod has just become ready.
LOOKUP_SECONDS = 20.0
# The rollout worker offers no service; its health is that of the process.
NAMELESS = "rollout"


def check(name: str, address: str) -> bool:
    """Prints what one replica says."""
    try:
        check_health(f"{address}:{PORT}", "" if name == NAMELESS else name, SECONDS)
    except Unavailable as error:
        print(f"{name} {address}: {error.message}")
        return False
    print(f"{name} {address}: SERVING")
    return True


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
