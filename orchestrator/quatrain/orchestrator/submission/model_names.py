"""Model names: `model-names/{name}/{n}.json`, each created once; the highest n is meant unless one is named.

Everybody may use a name; only who made its first entry, and admins, may add to it, since a spec that says
`models://base` takes the newest.
"""

import json
import re
from dataclasses import dataclass

from quatrain.digests import canonical_json
from quatrain.errors import Corrupt, InvalidInput, NotFound, PermissionRefused
from quatrain.rpc.access import LOCAL, Principal
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
    """Adds an entry to a name's series; its newest model again adds nothing.

    Raises InvalidInput on a bad name, PermissionRefused when it is somebody else's.
    """
    if not NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(f"model name {name!r}: use 1 to 63 of a-z, 0-9, '.', '_' and '-', no '..'")
    while True:
        entries = [entry for entry in list_models(store) if entry.name == name]
        if entries and entries[-1].digest == digest:
            return entries[-1]
        if entries and not principal.may_change(entries[0].owner):
            raise PermissionRefused(f"the model name {name!r} belongs to {entries[0].owner!r}; choose another name")
        number = entries[-1].number + 1 if entries else 1
        entry = canonical_json({"digest": digest, "owner": principal.name})
        if store.put_if_absent(f"{PREFIX}{name}/{number:010d}.json", entry):
            return NamedModel(name, number, digest, principal.name)


def list_models(store: ObjectStore) -> list[NamedModel]:
    """All entries by name and number."""
    entries = []
    for stat in store.list(PREFIX):
        name, _, file = stat.key.removeprefix(PREFIX).rpartition("/")
        try:
            document = json.loads(store.get(stat.key))
            number = int(file.removesuffix(".json"))
            entries.append(NamedModel(name, number, str(document["digest"]), str(document.get("owner", LOCAL.name))))
        except (ValueError, KeyError, TypeError) as error:
            raise Corrupt(f"{stat.key} is not an entry of a model name: {error}") from error
    return sorted(entries, key=lambda entry: (entry.name, entry.number))


def resolve_name(store: ObjectStore, uri: str) -> str:
    """Digest of `models://NAME[@N]`. Raises NotFound naming what exists."""
    name, _, number = uri.removeprefix("models://").partition("@")
    entries = [entry for entry in list_models(store) if entry.name == name]
    wanted = [entry for entry in entries if not number or str(entry.number) == number]
    if not wanted:
        known = sorted({entry.name for entry in list_models(store)})
        raise NotFound(f"there is no model {uri!r}; known names: {', '.join(known) or 'none'}")
    return wanted[-1].digest
