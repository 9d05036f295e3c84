"""Bearer tokens: made here, kept as hashes in a file that is read again when it changes.

The file is a YAML or JSON list; `new_token` makes an entry:

    - {name: ana, role: submitter, sha256: <64 hex digits>}
    - {name: grafana, role: viewer, sha256: <64 hex digits>, tenants: ["*"], expires: 2027-01-31}

A token is 256 random bits, so one SHA-256 without salt keeps it: there is no dictionary to try, and a slow hash would
only slow down every call. A principal may have several valid tokens, which is how one is replaced by another.
"""

import contextlib
import datetime
import hashlib
import hmac
import re
import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from quatrain.errors import InvalidInput, Unauthenticated
from quatrain.rpc.access import EVERY_TENANT, Principal, Role
from quatrain.rpc.files import LOOK_SECONDS, WatchedFiles
from quatrain.telemetry.logging import get_logger

PREFIX = "qt_"
_NAME = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?$")
_DIGEST = re.compile(r"^[0-9a-f]{64}$")
_KEYS = frozenset({"name", "role", "sha256", "tenants", "expires"})
_ROLES = {role.label: role for role in Role}

_log = get_logger(__name__)


@dataclass(frozen=True)
class TokenEntry:
    """One line of the file. `expires` in seconds since the epoch."""

    principal: Principal
    sha256: str
    expires: float | None = None


def hash_of(token: str) -> str:
    """What stands for a token in the file."""
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def new_token(
    name: str, role: str, *, tenants: Sequence[str] = (), expires: datetime.datetime | None = None
) -> tuple[str, dict[str, Any]]:
    """A fresh token and its entry for the file. Raises InvalidInput on a name, role or tenant that cannot be."""
    token = PREFIX + secrets.token_urlsafe(32)
    entry: dict[str, Any] = {"name": name, "role": role, "sha256": hash_of(token)}
    if tenants:
        entry["tenants"] = list(tenants)
    if expires is not None:
        entry["expires"] = expires.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    _entry(entry, "the new token")
    return token, entry


def line_of(entry: dict[str, Any]) -> str:
    """The entry as one line of the file."""
    return "- " + yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10_000).strip()


class TokenFile:
    """The valid tokens. A change of the file counts within a second; a file that cannot be read changes nothing."""

    def __init__(self, path: Path, *, every: float = LOOK_SECONDS) -> None:
        """Raises InvalidInput when the file cannot be read or holds no token."""
        self._files = WatchedFiles((path,), every)
        self._path = path
        self._lock = threading.Lock()
        self._entries = self._read()
        if not self._entries:
            raise InvalidInput(f"the file of tokens {path} holds no token; `quatrain token create` makes one")

    def principal_of(self, token: str) -> Principal:
        """Who the token stands for. Raises Unauthenticated; the message never holds the token."""
        given = hash_of(token)
        found = None
        for entry in self._current():  # All of them, whichever fits: the time tells nothing about the list.
            if hmac.compare_digest(entry.sha256, given):
                found = entry
        if found is None:
            raise Unauthenticated("the token is not valid: it is unknown here, or was taken back")
        if found.expires is not None and found.expires <= time.time():
            raise Unauthenticated(f"the token of {found.principal.name!r} has expired; ask for a new one")
        return found.principal

    def _current(self) -> tuple[TokenEntry, ...]:
        with self._lock:
            if self._files.changed():
                try:
                    self._entries = self._read()
                    _log.info("tokens read again", path=str(self._path), tokens=len(self._entries))
                except InvalidInput as error:
                    _log.error("the tokens from before stay valid", error=error.message)
            return self._entries

    def _read(self) -> tuple[TokenEntry, ...]:
        return parse_tokens(self._files.read()[0], str(self._path))


def parse_tokens(data: bytes, source: str) -> tuple[TokenEntry, ...]:
    """The entries of a file. Raises InvalidInput naming the entry that is wrong; no message shows a hash."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise InvalidInput(f"{source} is not YAML{f' (line {where.line + 1})' if where else ''}") from error
    if not isinstance(document, list):
        raise InvalidInput(f"{source} must hold a list of tokens, each with name, role and sha256")
    return tuple(_entry(item, f"entry {number} of {source}") for number, item in enumerate(document, 1))


def _entry(item: Any, where: str) -> TokenEntry:
    if not isinstance(item, dict):
        raise InvalidInput(f"{where} is no mapping of name, role and sha256")
    unknown = sorted(str(key) for key in item.keys() - _KEYS)
    if unknown:
        raise InvalidInput(f"{where}: unknown keys {', '.join(unknown)}; there are {', '.join(sorted(_KEYS))}")
    name, role, digest, tenants = (item.get(key) for key in ("name", "role", "sha256", "tenants"))
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidInput(f"{where}: name {name!r} must be 1 to 64 letters, digits, '.', '_', '@' and '-'")
    if role not in _ROLES:
        raise InvalidInput(f"{where}: role {role!r} must be one of {', '.join(_ROLES)}")
    if not isinstance(digest, str) or not _DIGEST.fullmatch(digest):
        raise InvalidInput(f"{where}: sha256 must be the 64 lower-case hex digits that `quatrain token create` prints")
    if tenants is not None and not _are_names(tenants):
        raise InvalidInput(f"{where}: tenants must be a list of names, or ['*'] for everybody")
    principal = Principal(name, _ROLES[role], frozenset(tenants or ()))
    return TokenEntry(principal, digest, _moment(item.get("expires"), where))


def _are_names(tenants: Any) -> bool:
    return isinstance(tenants, list) and all(
        isinstance(each, str) and (each == EVERY_TENANT or _NAME.fullmatch(each)) for each in tenants
    )


def _moment(value: Any, where: str) -> float | None:
    """YAML gives a date, a moment or text; without a zone UTC is meant."""
    if value is None:
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if not isinstance(value, datetime.datetime):
        raise InvalidInput(f"{where}: expires must be a date or a moment such as 2027-01-31T12:00:00Z")
    return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()
