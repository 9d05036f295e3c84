"""Events: small numbered objects `jobs/{job}/events/{revision:010d}`, each created once and never changed."""

import secrets
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import Corrupt


def _nonce() -> str:
    return secrets.token_hex(8)


def utc_now() -> str:
    """The time now, RFC 3339 in UTC with milliseconds. For people only: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Event:
    """One entry of a job's log.

    `epoch` is the owner's epoch, 0 for an intent (cancel, pause, resume) that any replica may append; `attempt` is the
    learner attempt that the event belongs to, 0 when it belongs to none. The `nonce` tells a writer, after an ambiguous
    time-out, whether the event it finds is its own. `revision` is 0 until the event is in the log.
    """

    type: str
    data: dict[str, Any]
    actor: str
    epoch: int = 0
    attempt: int = 0
    nonce: str = field(default_factory=_nonce)
    time: str = field(default_factory=utc_now)
    revision: int = 0

    def at(self, revision: int) -> "Event":
        """The same event with its place in the log."""
        return replace(self, revision=revision)

    def document(self) -> dict[str, Any]:
        """The event as a JSON object."""
        return {
            "revision": self.revision,
            "type": self.type,
            "data": self.data,
            "time": self.time,
            "actor": self.actor,
            "nonce": self.nonce,
            "epoch": self.epoch,
            "attempt": self.attempt,
        }

    def to_bytes(self) -> bytes:
        """Canonical JSON. Raises ValueError on NaN or infinity in the data: undefined numbers are null."""
        return canonical_json(self.document())


def event_key(job: str, revision: int) -> str:
    """Key of one event."""
    return f"jobs/{job}/events/{revision:010d}"


def parse_event(data: bytes, key: str) -> Event:
    """The event in `data`, read from `key`. Raises Corrupt when it is none, or one of another revision."""
    try:
        event = event_from(parse_json(data))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise Corrupt(f"{key} is not an event: {error!r}; restore the object from a copy of the bucket") from error
    if not key.endswith(f"/{event.revision:010d}"):
        raise Corrupt(f"{key} holds revision {event.revision}; restore the object from a copy of the bucket")
    return event


def event_from(document: dict[str, Any]) -> Event:
    """The event of a JSON object. Raises KeyError or TypeError when fields are missing."""
    texts = {name: document[name] for name in ("type", "actor", "nonce", "time")}
    if not isinstance(document["data"], dict) or not all(isinstance(text, str) for text in texts.values()):
        raise TypeError("a field has another type")
    return Event(
        data=document["data"],
        epoch=int(document["epoch"]),
        attempt=int(document["attempt"]),
        revision=int(document["revision"]),
        **texts,
    )
