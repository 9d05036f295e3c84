"""Model names: `model-names/{name}/{n}.json`, each created once; the highest n is meant unless one is named.

Everybody may use a name. Only the owner of its first entry, and admins, may add to it, since a spec that says
`models://base` takes the newest entry.
"""

import json
import re
from dataclasses import dataclass

from quatrain.digests import canonical_json
from quatrain.errors import Corrupt, InvalidInput, NotFound, PermissionRefused
from quatrain.rpc.server.access import LOCAL, Principal
from quatrain.storage import ObjectStore

PREFIX = "model-names/"
NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")


@dataclass(frozen=True)
class NamedModel:
    """One entry of a name's series."""

    name: str
    number: int
    digest: str
    owner: str


def register(store: ObjectStore, name: str, digest: str, principal: Principal) -> NamedModel:
    """Add an entry to a name's series; its newest model again adds nothing.

    Raises InvalidInput on a bad name, PermissionRefused when it is somebody else's.
    """
    if not _is_name(name):
        raise InvalidInput(f"model name {name!r}: use 1 to 63 of a-z, 0-9, '.', '_' and '-', no '..'")
    while True:
        entries = _entries(store, f"{PREFIX}{name}/")
        if entries and entries[-1].digest == digest:
            return entries[-1]
        if entries and not principal.may_change(entries[0].owner):
            raise PermissionRefused(f"the model name {name!r} belongs to {entries[0].owner!r}; choose another name")
        number = entries[-1].number + 1 if entries else 1
        entry = canonical_json({"digest": digest, "owner": principal.name})
        if store.put_if_absent(f"{PREFIX}{name}/{number:010d}.json", entry):
            return NamedModel(name, number, digest, principal.name)


def list_models(store: ObjectStore) -> list[NamedModel]:
    """Return all entries, ordered by name and number."""
    return _entries(store, PREFIX)


def resolve_name(store: ObjectStore, uri: str) -> str:
    """Return the digest of `models://NAME[@N]`. Raises NotFound with the known names."""
    name, _, number = uri.removeprefix("models://").partition("@")
    listed = store.list(f"{PREFIX}{name}/") if _is_name(name) else []
    wanted = [stat.key for stat in listed if not number or str(_parts(stat.key)[1]) == number]
    if not wanted:
        known = sorted({_parts(stat.key)[0] for stat in store.list(PREFIX)})
        raise NotFound(f"there is no model {uri!r}; known names: {', '.join(known) or 'none'}")
    return _entry(store, max(wanted, key=_parts)).digest


def _is_name(name: str) -> bool:
    return NAME.fullmatch(name) is not None and ".." not in name


def _entries(store: ObjectStore, prefix: str) -> list[NamedModel]:
    entries = [_entry(store, stat.key) for stat in store.list(prefix)]
    return sorted(entries, key=lambda entry: (entry.name, entry.number))


def _entry(store: ObjectStore, key: str) -> NamedModel:
    name, number = _parts(key)
    try:
        document = json.loads(store.get(key))
        return NamedModel(name, number, str(document["digest"]), str(document.get("owner", LOCAL.name)))
    except (ValueError, KeyError, TypeError) as error:
        raise Corrupt(f"{key} is not an entry of a model name: {error}") from error


def _parts(key: str) -> tuple[str, int]:
    """Return the name and the number in a key."""
    name, _, file = key.removeprefix(PREFIX).rpartition("/")
    try:
        return name, int(file.removesuffix(".json"))
    except ValueError as error:
        raise Corrupt(f"{key} is not an entry of a model name: {error}") from error
