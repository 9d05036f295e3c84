"""Results that are too large for the queue: each lies in an object of its own, which its entry in the queue names.

An object is written before its entry. It has no authority: one that is lost is made again like any other sample. The
owner deletes it once the step is sealed for good, and what is left of a job's objects when the job ends.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt
from quatrain.orchestrator.rollout.samples import Made, Purpose, Result, Stored
from quatrain.orchestrator.rollout.wire import decode_result, encode_result
from quatrain.refs import ObjectRef
from quatrain.storage import ObjectStore
from quatrain.storage.corrupt_reads import QUICK_RETRY_PAUSES
from quatrain.storage.folders import read_object


@dataclass(frozen=True)
class Packed:
    """The results of a task as entries of the queue, and the objects that some of them name."""

    entries: Sequence[bytes] = ()
    objects: Mapping[str, bytes] = field(default_factory=dict)


def results_prefix(job: str) -> str:
    """Return where the objects of a job's results lie."""
    return f"jobs/{job}/ppo/rollouts/"


def batch_prefix(job: str, purpose: Purpose, step: int) -> str:
    """Return how the keys of one batch's objects begin."""
    return f"{results_prefix(job)}{purpose}-{step}-"


def pack(results: Sequence[Result], inline_bytes: int) -> Packed:
    """Serialize the results; a sample larger than `inline_bytes` becomes an object under a name of this call alone."""
    entries: list[bytes] = []
    objects: dict[str, bytes] = {}
    nonce = uuid.uuid4().hex
    for index, result in enumerate(results):
        data = encode_result(result)
        if len(data) > inline_bytes and isinstance(result, Made):
            place = result.place
            key = f"{batch_prefix(place.job, place.purpose, place.step)}{place.chunk}-{nonce}-{index}"
            objects[key] = data
            ref = ObjectRef(key, sha256_hex(data), len(data))
            data = encode_result(Stored(place, result.rollout.sample, ref, result.work.made_by))
        entries.append(data)
    return Packed(entries, objects)


def write_objects(store: ObjectStore, packed: Packed) -> None:
    """Write the objects; those that an earlier call has written are left as they are. Raises Unavailable."""
    for key, data in packed.objects.items():
        store.put_if_absent(key, data)


def discard_objects(store: ObjectStore, packed: Packed) -> None:
    """Delete the objects again. Raises Unavailable."""
    for key in packed.objects:
        store.delete(key)


def read_result(store: ObjectStore, job: str, entry: Stored) -> bytes:
    """Return the whole result that an entry of this job names, as its worker has written it.

    Raises NotFound, Corrupt when the object is no whole result, or of another sample, InvalidInput, Unavailable.
    """
    key = entry.object.key
    _check_place(job, key)
    data = read_object(store, key, entry.object.sha256, QUICK_RETRY_PAUSES)  # Whatever is lost is made again.
    result = decode_result(data)
    if not isinstance(result, Made):
        raise Corrupt(f"{key} is no whole rollout result")
    if (result.place, result.rollout.sample, result.work.made_by) != (entry.place, entry.sample, entry.made_by):
        raise Corrupt(f"{key} holds another sample than its entry in the queue says")
    return data


def delete_object(store: ObjectStore, job: str, key: str) -> None:
    """Delete the object that an entry of this job names. Raises InvalidInput, Corrupt, Unavailable."""
    _check_place(job, key)
    store.delete(key)


def _check_place(job: str, key: str) -> None:
    """Raise Corrupt unless the object lies where results of this job do: entries are not trusted."""
    if not key.startswith(results_prefix(job)):
        raise Corrupt(f"an entry of job {job} names the object {key}, which is no result of this job")
