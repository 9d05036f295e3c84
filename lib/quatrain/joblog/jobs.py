"""Jobs as objects: a job exists once its `spec.json` does.

`active/{job}` is an index of the unfinished jobs; `cleanup/{job}/{revision}` one of the jobs that have data to delete.
"""

import re
from collections.abc import Mapping

from quatrain.digests import canonical_json, parse_json
from quatrain.errors import Corrupt, NotFound
from quatrain.faults import fault_point
from quatrain.joblog.view import JobView
from quatrain.json_values import JsonObject
from quatrain.storage import ObjectStore
from quatrain.storage.corrupt_reads import QUICK_RETRY_PAUSES, retry_corrupt_reads
from quatrain.storage.protocol import PAGE

JOB_ID = re.compile(r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")
IndexStamp = tuple[float, int]
"""Time and size of an index entry: when they change, somebody has asked something of the job."""


def spec_key(job: str) -> str:
    """Return the key of a job's spec."""
    return f"jobs/{job}/spec.json"


def active_key(job: str) -> str:
    """Return the key of a job's entry in the index of unfinished jobs."""
    return f"active/{job}"


def cleanup_key(job: str, revision: int) -> str:
    """Return the key of an entry in the index of jobs to clean: the event at `revision` leaves data to delete.

    A writer that is about to append such an event to the log of a job without an owner makes the entry first, for the
    revision that the event will have. A crash between the two leaves one entry too many, never one too few.
    """
    return f"cleanup/{job}/{revision:010d}"


def create_job(store: ObjectStore, job_id: str, document: Mapping[str, object]) -> bool:
    """Create a job with `document` as its spec.json; return False when the id is taken, by whatever document.

    The index entry is written first, so that no accepted job is ever missing there; an entry without a job is harmless.
    Raises Unavailable when the store is.
    """
    if store.stat(spec_key(job_id)) is not None:
        return False
    store.put_if_absent(active_key(job_id), b"{}")
    fault_point("submit.after_active")
    return store.put_if_absent(spec_key(job_id), canonical_json(document))


def read_spec(store: ObjectStore, job: str) -> JsonObject:
    """Return the document that the job was created with. Raises NotFound without such a job, Corrupt when damaged."""
    return retry_corrupt_reads(lambda: _spec(store, job), QUICK_RETRY_PAUSES)


def _spec(store: ObjectStore, job: str) -> JsonObject:
    if not JOB_ID.fullmatch(job):
        raise NotFound(
            f"{job[:80]!r} is no job id: those have 1 to 63 of a-z, 0-9 and '-', not at the ends; "
            "`quatrain job list` shows the jobs"
        )
    try:
        data = store.get(spec_key(job))
    except NotFound as error:
        raise no_such_job(job) from error
    try:
        document = parse_json(data)
    except ValueError as error:
        raise Corrupt(f"{spec_key(job)} is not JSON: {error}") from error
    if not isinstance(document, dict):
        raise Corrupt(f"{spec_key(job)} is not a JSON object")
    return document


def no_such_job(job: str) -> NotFound:
    """Return the error for a job that does not exist, and for one that the caller may not see."""
    return NotFound(f"there is no job {job!r}; `quatrain job list` shows the jobs there are")


def check_kept(job: str, view: JobView) -> None:
    """Raise NotFound when the job was deleted."""
    if view.deleted is not None:
        raise NotFound(
            f"job {job!r} was deleted on {view.deleted.time} by {view.deleted.actor}; "
            f"`quatrain job events {job}` still tells its history"
        )


def list_jobs(store: ObjectStore) -> list[str]:
    """Return the ids of all jobs in key order, with at most two requests for each job, however long its log is."""
    found: list[str] = []
    after = "jobs/"
    while page := store.list("jobs/", start_after=after, limit=PAGE):
        keys = {stat.key for stat in page}
        jobs = list(dict.fromkeys(stat.key.split("/")[1] for stat in page))
        # The page may end within the keys of the last job.
        found += [job for job in jobs[:-1] if spec_key(job) in keys]
        if spec_key(jobs[-1]) in keys or store.stat(spec_key(jobs[-1])) is not None:
            found.append(jobs[-1])
        # "0" is the character after "/": the next key that is not below this job's folder.
        after = f"jobs/{jobs[-1]}0"
    return found


def list_active(store: ObjectStore) -> dict[str, IndexStamp]:
    """Return the index of unfinished jobs by id. One may have finished or never been created: check before you act."""
    return {stat.key.removeprefix("active/"): (stat.modified, stat.size) for stat in store.list("active/")}


def mark_active(store: ObjectStore, job: str, revision: int) -> None:
    """Write the job's index entry again, so that those who list the index see that its log has grown."""
    store.put(active_key(job), canonical_json({"revision": revision}))


def list_cleanups(store: ObjectStore) -> dict[str, list[int]]:
    """Return the revisions of each job's entries in the index of jobs to clean. Foreign keys are left alone."""
    found: dict[str, list[int]] = {}
    for stat in store.list("cleanup/"):
        job, _, revision = stat.key.removeprefix("cleanup/").partition("/")
        if revision.isascii() and revision.isdigit():
            found.setdefault(job, []).append(int(revision))
    return found


def retire(store: ObjectStore, job: str) -> None:
    """Take a job out of the index of unfinished jobs, after its terminal event; it is cleaned next. Idempotent."""
    store.put(cleanup_key(job, 0), b"{}")
    store.delete(active_key(job))
