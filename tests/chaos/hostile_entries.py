"""Entries that no process of the product would write: repeated ones (replay) and damaged ones (poison)."""

import time
from typing import TYPE_CHECKING, Any

import redis as redis_client
from tests.chaos.stale_owner import use_stale_tokens

if TYPE_CHECKING:
    from tests.chaos.injections import Injection

TICK = 0.02


def replay(run: "Injection") -> None:
    """Class F: send again what was sent once."""
    run.target = run.case.what
    if run.case.what in ("tasks-twice", "results-twice"):
        key = "quatrain:tasks:default" if run.case.what == "tasks-twice" else f"quatrain:rollouts:{run.job}"
        with run.stack.redis() as redis:
            _repeat_entries(run, redis, key)
    elif run.case.what == "stale-token":
        run.error = use_stale_tokens(run.stack, run.job)


def _repeat_entries(run: "Injection", redis: "redis_client.Redis", key: str) -> None:
    """Add each entry of a stream once more, for two seconds."""
    seen: set[bytes] = set()
    until = time.monotonic() + 2.0
    while time.monotonic() < until and not run.ending.is_set():
        entries: Any = redis.xrange(key)
        for entry, fields in entries:
            if entry not in seen:
                again: Any = redis.xadd(key, fields)
                seen |= {entry, again}
        time.sleep(TICK)


def poison(run: "Injection") -> None:
    """Class G: write damaged tasks, results and jobs where the product looks for them."""
    run.target = run.case.what
    with run.stack.redis() as redis:
        if run.case.what == "tasks":
            for payload in (b"", b"\xff\xff no task", b"\x00" * 100_000):
                redis.xadd("quatrain:tasks:default", {"job": run.job, "nonce": "poison", "payload": payload})
        elif run.case.what == "results":
            for payload in (b"", b"\xff\xff no result", b"\x00" * 100_000):
                redis.xadd(f"quatrain:rollouts:{run.job}", {"result": payload})
        else:
            run.store.put_if_absent("active/never-created", b"{}")
            run.store.put_if_absent(f"active/damaged-{run.job}", b"{}")
            run.store.put_if_absent(f"jobs/damaged-{run.job}/spec.json", b"{ no json")
            run.rest(2.0)
            run.store.delete(f"active/damaged-{run.job}")
