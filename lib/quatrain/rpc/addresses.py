"""Addresses of servers, and the sizes of their messages."""

import ipaddress

from quatrain.errors import InvalidInput

MIB = 2**20


def check_address(address: str, target: str) -> None:
    """Raise InvalidInput unless `address` is `host:port`."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or "/" in host or not port.isdigit() or not 0 < int(port) < 65536:
        raise InvalidInput(f"{address!r} in target {target!r} is no host:port")


def is_loopback(host: str) -> bool:
    """Return whether only this machine reaches the address; a name other than localhost counts as reachable."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"
