"""Bearer tokens: made here, kept as hashes in a file that is read again when it changes.

The file is a YAML or JSON list; `new_token` makes an entry:

    - {name: ana, role: submitter, sha256: <64 hex digits>}
    - {name: grafana, role: viewer, sha256: <64 hex digits>, tenants: ["*"], expires: 2027-01-31}

A token is 256 random bits, so SHA-256 without salt is safe: there is no dictionary to try, and a slow hash would only
slow down every call. A principal may have several valid tokens, which is how one is replaced by another.
"""

import contextlib
import datetime
import hashlib
import hmac
import secrets
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, NotRequired, TypedDict

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints, ValidationError

from quatrain.errors import InvalidInput, Unauthenticated
from quatrain.process.files import POLL_SECONDS, WatchedFiles
from quatrain.rpc.server.access import EVERY_TENANT, Principal, Role
from quatrain.telemetry.logging import get_logger

PREFIX = "qt_"

_log = get_logger(__name__)


def _moment(value: object) -> float | None:
    """Return seconds since the epoch. YAML gives a date, a moment or text; without a zone UTC is meant."""
    if value is None:
        return None
    if isinstance(value, str):
        with contextlib.suppress(ValueError):
            value = datetime.datetime.fromisoformat(value)
    if isinstance(value, datetime.date) and not isinstance(value, datetime.datetime):
        value = datetime.datetime.combine(value, datetime.time())
    if not isinstance(value, datetime.datetime):
        raise ValueError("it is not a moment")
    return (value if value.tzinfo else value.replace(tzinfo=datetime.UTC)).timestamp()


Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._@-]{0,62}[A-Za-z0-9])?$")]


class TokenDocument(TypedDict):
    """An entry as a new one is written into the file."""

    name: str
    role: str
    sha256: str
    tenants: NotRequired[list[str]]
    expires: NotRequired[str]


class TokenEntry(BaseModel):
    """One entry of the file. A description says what a field must be; `expires` is kept as seconds since the epoch."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", hide_input_in_errors=True)

    name: Name = Field(description="1 to 64 letters, digits, '.', '_', '@' and '-'")
    role: Literal["viewer", "submitter", "admin"] = Field(description="one of viewer, submitter, admin")
    sha256: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] = Field(
        repr=False, description="the 64 lower-case hex digits that `quatrain token create` prints"
    )
    tenants: list[Literal["*"] | Name] | None = Field(
        default=None, description=f"a list of names, or [{EVERY_TENANT!r}] for everybody"
    )
    expires: Annotated[float | None, BeforeValidator(_moment)] = Field(
        default=None, description="a date or a moment such as 2027-01-31T12:00:00Z"
    )

    @classmethod
    def read(cls, document: object, where: str) -> "TokenEntry":
        """Return the entry that a document holds. Raises InvalidInput, whose message never shows the hash."""
        if not isinstance(document, dict):
            raise InvalidInput(f"{where} is not a mapping of name, role and sha256")
        known = cls.model_fields
        if unknown := sorted(str(key) for key in document.keys() - known.keys()):
            raise InvalidInput(f"{where}: unknown keys {', '.join(unknown)}; there are {', '.join(sorted(known))}")
        try:
            return cls.model_validate(document)
        except ValidationError as error:
            field = str(error.errors(include_url=False)[0]["loc"][0])
            shown = f" {document.get(field)!r}" if field in ("name", "role") else ""
            raise InvalidInput(f"{where}: {field}{shown} must be {known[field].description}") from None

    @property
    def principal(self) -> Principal:
        """Return whom the token stands for."""
        return Principal(self.name, Role[self.role.upper()], frozenset(self.tenants or ()))


def hash_of(token: str) -> str:
    """Return the hash that stands for a token in the file."""
    return hashlib.sha256(token.encode("utf-8", errors="surrogatepass")).hexdigest()


def new_token(
    name: str, role: str, *, tenants: Sequence[str] = (), expires: datetime.datetime | None = None
) -> tuple[str, TokenDocument]:
    """Make a token and its entry for the file. Raises InvalidInput for a wrong name, role or tenant."""
    token = PREFIX + secrets.token_urlsafe(32)
    entry: TokenDocument = {"name": name, "role": role, "sha256": hash_of(token)}
    if tenants:
        entry["tenants"] = list(tenants)
    if expires is not None:
        entry["expires"] = expires.astimezone(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    TokenEntry.read(entry, "the new token")
    return token, entry


def line_of(entry: TokenDocument) -> str:
    """Return the entry as one line of the file."""
    return "- " + yaml.safe_dump(entry, default_flow_style=True, sort_keys=False, width=10_000).strip()


class TokenFile:
    """The valid tokens. A change of the file is seen within a second; a file that cannot be read changes nothing."""

    def __init__(self, path: Path, *, every: float = POLL_SECONDS) -> None:
        """Read the file. Raises InvalidInput when it cannot be read or holds no token."""
        self._files = WatchedFiles((path,), every)
        self._path = path
        self._lock = threading.Lock()
        self._entries = self._read()
        if not self._entries:
            raise InvalidInput(f"the file of tokens {path} holds no token; `quatrain token create` makes one")

    def principal_of(self, token: str) -> Principal:
        """Return whom the token stands for. Raises Unauthenticated; the message never holds the token."""
        given = hash_of(token)
        found = None
        for entry in self._current():  # all are compared, so the time reveals nothing about the list
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
    """Return the entries of a file. Raises InvalidInput naming the entry that is wrong; no message shows a hash."""
    try:
        document = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        where = getattr(error, "problem_mark", None)
        raise InvalidInput(f"{source} is not YAML{f' (line {where.line + 1})' if where else ''}") from error
    if not isinstance(document, list):
        raise InvalidInput(f"{source} must hold a list of tokens, each with name, role and sha256")
    return tuple(TokenEntry.read(item, f"entry {number} of {source}") for number, item in enumerate(document, 1))
