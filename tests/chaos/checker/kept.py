"""I6: everything that the log or the spec names and retention keeps is there, byte for byte."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.chaos.checker.history import Event, History, event_from, read_history
from tests.chaos.checker.objects import Missing, Objects, sha256
from tests.chaos.checker.released import MANIFEST, Released, manifest_key, too_early
from tests.chaos.checker.tables import canonical
from tests.chaos.checker.verdict import Case, Part, always


@dataclass(frozen=True)
class Named:
    """An object (or the manifest of a folder) that something names."""

    by: str
    revision: int
    """Revision of the event that names it; 0 for the spec."""
    key: str
    sha256: str
    size: int | None = None


def named_objects(history: History) -> Iterator[Named]:
    """All that spec and events name, each time it is named."""
    begun = _refs([history.pinned, history.spec.get("forked_from")])
    yield from _in_store(history, (_named("spec.json", 0, ref) for ref in begun))
    for event in history.events:
        yield from _in_store(history, (_named(str(event), event.revision, ref) for ref in _refs(event.data)))


def _in_store(history: History, names: Iterable[Named]) -> Iterator[Named]:
    """Without local files, and without what lies with other jobs: a fork has copies, its parent's own may go."""
    for named in names:
        if named.key and (not named.key.startswith("jobs/") or named.key.startswith(f"jobs/{history.job}/")):
            yield named


def _refs(value: Any) -> Iterator[dict[str, Any]]:
    """Every {key, sha256}, {uri, digest} and code_digest in a document, however deep."""
    if isinstance(value, dict):
        if value.get("code_digest"):
            yield {"key": f"data/sha256/{value['code_digest']}", "sha256": value["code_digest"]}
        if ("key" in value and "sha256" in value) or ("uri" in value and "digest" in value):
            yield value
        for child in value.values():
            yield from _refs(child)
    elif isinstance(value, list):
        for child in value:
            yield from _refs(child)


def _named(by: str, revision: int, ref: dict[str, Any]) -> Named:
    if "key" in ref:
        return Named(by, revision, ref["key"], ref["sha256"], ref.get("size"))
    return Named(by, revision, manifest_key(ref["uri"]), ref["digest"])


def read_folder(objects: Objects, named: Named) -> dict[str, bytes]:
    """Files of a folder by path. Raises ValueError saying what is missing or has another hash."""
    prefix = named.key.removesuffix(MANIFEST)
    manifest = json.loads(read_verified(objects, named.key, named.sha256, named.size))
    return {
        path: read_verified(objects, f"{prefix}/{path}", entry["sha256"], entry["size"])
        for path, entry in sorted(manifest["files"].items())
    }


def read_verified(objects: Objects, key: str, digest: str, size: int | None) -> bytes:
    """Bytes of an object. Raises ValueError when it is not there, or is another one."""
    try:
        data = objects.get(key)
    except Missing:
        raise ValueError(f"{key} is missing") from None
    if sha256(data) != digest:
        raise ValueError(f"{key} has sha256 {sha256(data)}, named is {digest}")
    if size and size != len(data):
        raise ValueError(f"{key} has {len(data)} bytes, named are {size}")
    return data


def _there(case: Case) -> Iterator[str]:
    wrong = _damaged(case.objects, case.history)
    if wrong and case.observed.running:
        # Retention may have released something since the log was read: event first, data after.
        released = Released(read_history(case.objects, case.job))
        wrong = [(named, text) for named, text in wrong if not released.covers(named.key)]
    for named, text in wrong:
        yield f"{named.by}: {text}"


def _damaged(objects: Objects, history: History) -> list[tuple[Named, str]]:
    wrong = []
    released = Released(history)
    seen: dict[tuple[str, str], str] = {}
    for named in named_objects(history):
        place = named.key, named.sha256
        if place not in seen and not released.covers(named.key):
            seen[place] = _damage(objects, named)
            if seen[place]:
                wrong.append((named, seen[place]))
    return wrong


def _damage(objects: Objects, named: Named) -> str:
    try:
        if named.key.endswith(MANIFEST):
            read_folder(objects, named)
        else:
            read_verified(objects, named.key, named.sha256, named.size)
    except ValueError as error:
        return str(error)
    return ""


def _log_whole(case: Case) -> Iterator[str]:
    yield from case.history.damage


def _nothing_released(case: Case) -> str:
    released = case.history.last("checkpoint_released", "checkpoint_pinned", "policies_released")
    return "" if released is not None else "retention released nothing"


def _retention(case: Case) -> Iterator[str]:
    yield from too_early(case.history)


def _no_stage_done(case: Case) -> str:
    return "" if case.history.last("stage_completed") else "no stage was completed"


def _weights(case: Case) -> Iterator[str]:
    """`weights_sha256` is that of the weight files in name order."""
    for event in case.history.of("stage_completed"):
        named = _named(str(event), event.revision, event.data["model"])
        try:
            files = read_folder(case.objects, named)
        except ValueError:
            continue
        found = sha256(b"".join(data for path, data in sorted(files.items()) if path.endswith(".safetensors")))
        if found != event.data["weights_sha256"]:
            yield f"{event}: the weights have sha256 {found}, named is {event.data['weights_sha256']}"


def _snapshots(case: Case) -> Iterator[str]:
    """A snapshot whose digest checks is believed by readers: it has to tell what the events tell."""
    told = list(_told(case.objects, f"jobs/{case.job}/snapshots/"))
    # Snapshots are read after the log: of a job that runs they may know more.
    history = read_history(case.objects, case.job) if case.observed.running else case.history
    events = {event.revision: event for event in history.events}
    for key, event in told:
        if events.get(event.revision) != event:
            yield f"{key} tells event {event.revision} otherwise than the log"


def _told(objects: Objects, prefix: str) -> Iterator[tuple[str, Event]]:
    for key in objects.list(prefix):
        try:
            document = json.loads(objects.get(key))
            if sha256(canonical(document["events"])) == document["sha256"]:
                yield from [(key, event_from(each)) for each in document["events"]]
        except (Missing, ValueError, KeyError, TypeError):
            continue


PARTS = [
    Part("I6", "log", always, _log_whole),
    Part("I6", "named objects", always, _there),
    Part("I6", "retention", _nothing_released, _retention),
    Part("I6", "weights", _no_stage_done, _weights),
    Part("I6", "snapshots", always, _snapshots),
]
