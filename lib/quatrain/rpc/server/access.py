"""Callers, and the methods that their roles open. The guard of a public server asks `Access` before it reads a request.

Roles are ordered: a submitter may do what a viewer may, an admin everything. A method without an entry in the table of
roles is refused, so a new method is closed until its entry says who may call it. What a caller may see of other
people's jobs is for the servicer to decide; `caller()` returns who asks.
"""

import enum
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Protocol

from quatrain.errors import PermissionRefused, Unauthenticated

AUTHORIZATION = "authorization"
EVERY_TENANT = "*"


class Role(enum.IntEnum):
    """The rights of a token."""

    VIEWER = 1
    SUBMITTER = 2
    ADMIN = 3

    @property
    def label(self) -> str:
        """Return the role as people write it."""
        return self.name.lower()


@dataclass(frozen=True)
class Principal:
    """The person or program behind a token. `tenants`: principals whose jobs they may read; `*` means everybody's."""

    name: str
    role: Role
    tenants: frozenset[str] = frozenset()

    def may_read(self, owner: str) -> bool:
        """Return whether they may read what belongs to `owner`."""
        return self.may_change(owner) or owner in self.tenants or EVERY_TENANT in self.tenants

    def may_change(self, owner: str) -> bool:
        """Return whether they may change what belongs to `owner`, as far as their role lets them change anything."""
        return self.role is Role.ADMIN or (bool(self.name) and self.name == owner)


LOCAL = Principal("local", Role.ADMIN)
"""The principal of all callers of a server without tokens, which listens on loopback only."""

_NOBODY = Principal("", Role.VIEWER)
_caller: ContextVar[Principal] = ContextVar("caller", default=_NOBODY)


def caller() -> Principal:
    """Return who makes the call that the current task serves; outside of a call, one who may see nothing."""
    return _caller.get()


def set_caller(principal: Principal) -> None:
    """Set who calls. For the guard: each call has its own context, so nothing has to be reset afterwards."""
    _caller.set(principal)


class Authenticator(Protocol):
    """A source of valid tokens."""

    def principal_of(self, token: str) -> Principal:
        """Return whom the token stands for. Raises Unauthenticated; the message never holds the token."""
        ...


class Access:
    """The decision about calls to a public server. Without an authenticator every caller is `LOCAL`."""

    def __init__(self, roles: Mapping[str, Role], tokens: Authenticator | None) -> None:
        """Take `roles`, the lowest role of each method by its path, such as `/quatrain.v1.JobService/GetJob`."""
        self._roles = roles
        self._tokens = tokens

    def authenticate(self, metadata: Iterable[tuple[str, str | bytes]]) -> Principal:
        """Return who calls. Raises Unauthenticated without a valid bearer token."""
        if self._tokens is None:
            return LOCAL
        return self._tokens.principal_of(_bearer_token(metadata))

    def authorize(self, principal: Principal, method: str) -> None:
        """Raise PermissionRefused unless the caller's role opens the method."""
        needed = self._roles.get(method)
        if needed is None:
            raise PermissionRefused(f"{method} is open to nobody: it has no entry in the table of roles")
        if principal.role < needed:
            raise PermissionRefused(
                f"{method} needs the role {needed.label}; the token of {principal.name!r} has the role "
                f"{principal.role.label}"
            )


def _bearer_token(metadata: Iterable[tuple[str, str | bytes]]) -> str:
    given = [value for key, value in metadata if key == AUTHORIZATION]
    if not given:
        raise Unauthenticated("this API needs a token: send the metadata `authorization: Bearer TOKEN`")
    scheme, _, token = str(given[0]).partition(" ")
    if len(given) > 1 or scheme.lower() != "bearer" or not token.strip():
        raise Unauthenticated("the metadata `authorization` must be given once, as `Bearer TOKEN`")
    return token.strip()
