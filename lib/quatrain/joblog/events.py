"""Events: small numbered objects `jobs/{job}/events/{revision:010d}`, each created once and never changed."""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import Corrupt
from quatrain.joblog.payloads import Payload, payload_from
from quatrain.json_values import JsonObject, as_int


def _nonce() -> str:
    return secrets.token_hex(8)


def utc_now() -> str:
    """Return the time now, RFC 3339 in UTC with milliseconds. It is for people only: nothing is decided by it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass(frozen=True)
class Event:
    """One entry of a job's log.

    `epoch` is the owner's epoch, 0 for what any replica may append (an intent, or care for a finished job); `attempt`
    is the learner attempt that the event belongs to, 0 when it belongs to none. After an ambiguous time-out the `nonce`
    tells a writer whether the event that it finds is its own. `revision` is 0 until the event is in the log.
    """

    payload: Payload
    actor: str
    epoch: int = 0
    attempt: int = 0
    nonce: str = field(default_factory=_nonce)
    time: str = field(default_factory=utc_now)
    revision: int = 0
    stored: tuple[str, JsonObject] | None = field(default=None, compare=False, repr=False)
    """Type and data of an event that was read, with what this version does not know of them."""

    @property
    def type(self) -> str:
        """The stable word for what the event says."""
        return self.payload.TYPE if self.stored is None else self.stored[0]

    @property
    def data(self) -> dict[str, Any]:
        """The payload as JSON, for those who show events."""
        return self.payload.to_json() if self.stored is None else self.stored[1]

    def at(self, revision: int) -> "Event":
        """Return the same event with its place in the log."""
        return replace(self, revision=revision)

    def document(self) -> JsonObject:
        """Return the event as a JSON object."""
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
        """Return canonical JSON."""
        return canonical_json(self.document())


def event_key(job: str, revision: int) -> str:
    """Return the key of one event."""
    return f"jobs/{job}/events/{revision:010d}"


def parse_event(data: bytes, key: str) -> Event:
    """Return the event in `data`, read from `key`. Raises Corrupt when it is none, or one of another revision."""
    try:
        event = event_from(parse_json(data))
    except (ValueError, KeyError, TypeError, OverflowError) as error:
        raise Corrupt(f"{key} is not an event: {error!r}; restore the object from a copy of the bucket") from error
    if not key.endswith(f"/{event.revision:010d}"):
        raise Corrupt(f"{key} holds revision {event.revision}; restore the object from a copy of the bucket")
    return event


def event_from(document: Mapping[str, object]) -> Event:
    """Return the event of a JSON object. Raises KeyError, TypeError or ValueError when it is none."""
    type, actor, nonce, time, data = (document[name] for name in ("type", "actor", "nonce", "time", "data"))
    if not (isinstance(type, str) and isinstance(actor, str) and isinstance(nonce, str) and isinstance(time, str)):
        raise TypeError("a field has another type")
    if not isinstance(data, dict):
        raise TypeError("a field has another type")
    return Event(
        payload=payload_from(type, data),
        actor=actor,
        epoch=as_int(document["epoch"]),
        attempt=as_int(document["attempt"]),
        nonce=nonce,
        time=time,
        revision=as_int(document["revision"]),
        stored=(type, data),
    )
