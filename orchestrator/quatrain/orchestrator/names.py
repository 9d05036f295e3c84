"""Model names: `model-names/{name}/{n}.json`, each created once; the highest n is meant unless one is named."""

import json
import re
from dataclasses import dataclass

from quatrain.digests import canonical_json
from quatrain.errors import Corrupt, InvalidInput, NotFound
from quatrain.storage import ObjectStore

PREFIX = "model-names/"
NAME = re.compile(r"^[a-z0-9]([a-z0-9._-]{0,61}[a-z0-9])?$")


@dataclass(frozen=True)
class NamedModel:
    """One entry of a name's series."""

    name: str
    number: int
    digest: str


def register(store: ObjectStore, name: str, digest: str) -> NamedModel:
    """Adds an entry to a name's series; its newest model again adds nothing. Raises InvalidInput on a bad name."""
    if not NAME.fullmatch(name) or ".." in name:
        raise InvalidInput(f"model name {name!r}: use 1 to 63 of a-z, 0-9, '.', '_' and '-', no '..'")
    while True:
        entries = [entry for entry in list_models(store) if entry.name == name]
        if entries and entries[-1].digest == digest:
            return entries[-1]
        number = entries[-1].number + 1 if entries else 1
        if store.put_if_absent(f"{PREFIX}{name}/{number:010d}.json", canonical_json({"digest": digest})):
            return NamedModel(name, number, digest)


def list_models(store: ObjectStore) -> list[NamedModel]:
    """All entries by name and number."""
    entries = []
    for stat in store.list(PREFIX):
        name, _, file = stat.key.removeprefix(PREFIX).rpartition("/")
        try:
            document = json.loads(store.get(stat.key))
            entries.append(NamedModel(name, int(file.removesuffix(".json")), str(document["digest"])))
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
