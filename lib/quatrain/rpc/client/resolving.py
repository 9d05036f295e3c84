"""From a target string to addresses: a list, a name, or a file that is read again when it changes."""

import asyncio
import json
import socket
from collections.abc import Sequence
from pathlib import Path

from quatrain.errors import InvalidInput, Unavailable
from quatrain.process.files import write_whole
from quatrain.rpc.addresses import check_address

FILE_SCHEME = "targets-file:"
DNS_SCHEME = "dns:///"


class Resolver:
    """The addresses of one target, looked up at each question; a file is read again only when it has changed.

    Forms: `host:port`, `host:port,host:port`, `dns:///name:port` (all addresses of the name), `targets-file:/PATH` (a
    JSON list of host:port) and `targets-file:/PATH#NAME` (that key of a JSON object of lists). Raises InvalidInput for
    anything else.
    """

    def __init__(self, target: str) -> None:
        self.target = target
        self._fixed: tuple[str, ...] = ()
        self._stamp: tuple[int, int, int] | None = None
        self._seen: tuple[str, ...] = ()
        if target.startswith(FILE_SCHEME):
            path, _, self._key = target.removeprefix(FILE_SCHEME).partition("#")
            self._path = Path(path)
            if not self._path.is_absolute():
                raise InvalidInput(f"{target}: the file of targets needs an absolute path")
        elif target.startswith(DNS_SCHEME):
            check_address(target.removeprefix(DNS_SCHEME), target)
        else:
            self._fixed = tuple(dict.fromkeys(part.strip() for part in target.split(",")))
            for address in self._fixed:
                check_address(address, target)

    async def addresses(self, timeout: float = 2.0) -> tuple[str, ...]:
        """Return the addresses now, in a stable order, perhaps none. Raises Unavailable if they cannot be looked up."""
        if self._fixed:
            return self._fixed
        if self.target.startswith(FILE_SCHEME):
            return self._from_file()
        return await self._from_dns(timeout)

    def _from_file(self) -> tuple[str, ...]:
        try:
            info = self._path.stat()
            stamp = (info.st_mtime_ns, info.st_size, info.st_ino)
            if stamp != self._stamp:
                self._seen = self._parse(json.loads(self._path.read_bytes()))
                self._stamp = stamp
        except OSError as error:
            raise Unavailable(f"the file of targets {self._path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise Unavailable(f"the file of targets {self._path} is not JSON: {error}") from error
        return self._seen

    def _parse(self, document: object) -> tuple[str, ...]:
        listed = document.get(self._key, []) if self._key and isinstance(document, dict) else document
        if not isinstance(listed, list) or not all(isinstance(item, str) for item in listed):
            where = f"key {self._key!r} of " if self._key else ""
            raise Unavailable(f"{where}the file of targets {self._path} is no JSON list of host:port")
        for address in listed:
            check_address(address, self.target)
        return tuple(dict.fromkeys(listed))

    async def _from_dns(self, timeout: float) -> tuple[str, ...]:
        host, _, port = self.target.removeprefix(DNS_SCHEME).rpartition(":")
        lookup = asyncio.get_running_loop().getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(timeout):
                found = await lookup
        except TimeoutError as error:
            raise Unavailable(f"the name {host} was not resolved within {timeout:g} s") from error
        except OSError as error:
            raise Unavailable(f"the name {host} cannot be resolved: {error.strerror}") from error
        # A name that has both kinds would list each replica twice.
        family = min(info[0] for info in found)
        hosts = sorted({str(info[4][0]) for info in found if info[0] == family})
        return tuple(f"[{name}]:{port}" if ":" in name else f"{name}:{port}" for name in hosts)


async def resolve_targets(targets: Sequence[str]) -> tuple[str, ...]:
    """Return all addresses of several targets, without duplicates; for stateful peers that are called one by one."""
    found: dict[str, None] = {}
    for target in targets:
        found |= dict.fromkeys(await Resolver(target).addresses())
    return tuple(found)


def write_targets_file(path: Path, targets: Sequence[str] | dict[str, Sequence[str]]) -> None:
    """Write a file of targets, whole or not at all: a list, or one list per name."""
    document = {name: list(listed) for name, listed in targets.items()} if isinstance(targets, dict) else list(targets)
    write_whole(path, json.dumps(document, indent=2) + "\n")
