"""What a driver saw from outside while a job ran. Everything is optional: what is absent is not decided."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from redis import Redis

MIB = 2**20


@dataclass(frozen=True)
class Connection:
    """One connection of a watcher: what it asked for, and every message in order.

    A message is a WatchJobResponse as JSON (`MessageToDict`, either spelling of field names): `snapshot`, or `event`
    with `job`, or `heartbeat`; and `revision`. `ended` is True when the server ended the stream without an error.
    """

    after_revision: int
    messages: Sequence[dict[str, Any]]
    ended: bool


@dataclass(frozen=True)
class Created:
    """One answer to CreateJob. `job` is empty when the call was refused or its answer was lost."""

    request_id: str
    job: str


@dataclass(frozen=True)
class Cancel:
    """A call of CancelJob: seconds since 1970 of the call and of the end that the driver saw (None: it never came)."""

    requested: float
    finished: float | None
    bound: float = 60.0


@dataclass(frozen=True)
class Fault:
    """A fault and the budget for its recovery.

    `over`: seconds since 1970 at which it was over (a process killed, a server back). Within `budget` seconds the job
    must go on: a step, a batch, a checkpoint, an evaluation, a stage, or its end.
    """

    what: str
    over: float
    budget: float


@dataclass(frozen=True)
class Outage:
    """A store was away from `began` to `over` (seconds since 1970), long enough to be told.

    `silent`: the log could not be written meanwhile, so that it says so when the store is back.
    """

    what: str
    began: float
    over: float
    silent: bool


@dataclass(frozen=True)
class Start:
    """A process was started, by a supervisor or the driver, at `time` (seconds since 1970)."""

    process: str
    time: float


@dataclass(frozen=True)
class Observed:
    """What the driver saw of a run; a field that is None was not observed."""

    running: bool = False
    """The driver did not wait for the end: the job may be in any state that is not terminal."""
    clock_jumped: bool = False
    """Clocks were set: times of events mean nothing."""
    created: Sequence[Created] | None = None
    watches: Sequence[Sequence[Connection]] | None = None
    """Each watcher with its connections in order."""
    redis_left: Sequence[str] | None = None
    """`redis_left` after the job: what Redis still holds of it."""
    index_left: bool | None = None
    """Whether `active/{job}` was still there once the clean-up had time."""
    redis_memory: Sequence[int] | None = None
    """`used_memory` in bytes, sampled from before the job until after it."""
    redis_memory_growth: int = 64 * MIB
    """The most that it may grow above the first sample."""
    faults: Sequence[Fault] | None = None
    starts: Sequence[Start] | None = None
    cancel: Cancel | None = None
    outages: Sequence[Outage] | None = None
    cleanup_left: bool | None = None
    """Whether the index of jobs to clean still named the job once the clean-up had time."""
    kept: Mapping[str, str] | None = None
    """Objects that were there before a fault, with their sha256: of other jobs, of models, of data."""
    uploaded: Sequence[str] | None = None
    """sha256 of each file that the API said to be stored."""
    named: Mapping[str, str] | None = None
    """Each model name that was given, once, to the digest of its model."""


def redis_left(client: "Redis", job: str) -> list[str]:
    """What Redis holds of a job: keys that end with its id, and tasks of it in any stream of tasks."""
    found: list[str] = []
    for key in sorted(client.scan_iter(match="quatrain:*", count=1000)):
        name = key.decode()
        if name.rpartition(":")[2] == job and not name.startswith("quatrain:tasks:"):
            found.append(name)
        elif name.startswith("quatrain:tasks:"):
            entries: Any = client.xrange(key)
            found += [f"{name} {entry.decode()}" for entry, fields in entries if fields.get(b"job") == job.encode()]
    return found
