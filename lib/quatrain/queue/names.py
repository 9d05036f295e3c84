"""Keys in Redis, and the names that they may contain."""

import re

from quatrain.errors import InvalidInput

GROUP = "workers"
SENTINEL = "quatrain:sentinel"
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_name(what: str, name: str) -> str:
    """Return a pool, job, worker or owner name if it is plain, else raise InvalidInput."""
    if not _PLAIN.fullmatch(name):
        raise InvalidInput(
            f"{what} {name!r}: 1 to 128 letters, digits, dots, dashes and underscores are allowed, the first no sign"
        )
    return name


def tasks_key(pool: str) -> str:
    """Return the stream of the pool's tasks."""
    return f"quatrain:tasks:{check_name('pool', pool)}"


def rollouts_key(job: str) -> str:
    """Return the stream of the job's results."""
    return f"quatrain:rollouts:{check_name('job', job)}"


def job_key(job: str) -> str:
    """Return the key that is present while the job accepts results."""
    return f"quatrain:job:{check_name('job', job)}"


def owner_key(job: str) -> str:
    """Return the key that holds who owns the job, with an expiry."""
    return f"quatrain:owner:{check_name('job', job)}"
