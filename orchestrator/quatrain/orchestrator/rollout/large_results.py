"""Results that are too large for the queue: each lies in an object of its own, which its entry in the queue names.

An object is written before its entry. It has no authority: one that is lost is made again like any other sample. The
owner deletes it once the step is sealed for good, and what is left of a job's objects when the job ends.
"""

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from google.protobuf.message import DecodeError

from quatrain.digests import sha256_hex
from quatrain.errors import Corrupt
from quatrain.orchestrator.rollout.sampling import PURPOSE_NAMES
from quatrain.storage import ObjectStore
from quatrain.storage.folders import read_object
from quatrain.storage.rereading import SHORT_PAUSES
from quatrain.v1 import common_pb2, rollout_pb2

_IN_BOTH = ("job", "purpose", "step", "chunk", "row", "policy", "made_by")


@dataclass(frozen=True)
class Packed:
    """The results of a task as entries of the queue, and the objects that some of them name."""

    entries: Sequence[bytes] = ()
    objects: Mapping[str, bytes] = field(default_factory=dict)


def results_prefix(job: str) -> str:
    """Where the objects of a job's results lie."""
    return f"jobs/{job}/ppo/rollouts/"


def batch_prefix(job: str, purpose: str, step: int) -> str:
    """How the keys of one batch's objects begin."""
    return f"{results_prefix(job)}{purpose}-{step}-"


def pack(results: Sequence[rollout_pb2.RolloutResult], inline_bytes: int) -> Packed:
    """Serializes the results; a sample larger than `inline_bytes` becomes an object under a name of this call alone."""
    entries: list[bytes] = []
    objects: dict[str, bytes] = {}
    nonce = uuid.uuid4().hex
    for index, result in enumerate(results):
        data = result.SerializeToString()
        if len(data) > inline_bytes and result.HasField("row"):
            purpose = PURPOSE_NAMES.get(result.purpose, "unknown")
            key = f"{batch_prefix(result.job, purpose, result.step)}{result.chunk}-{nonce}-{index}"
            objects[key] = data
            data = _entry(result, key, data).SerializeToString()
        entries.append(data)
    return Packed(entries, objects)


def write_objects(store: ObjectStore, packed: Packed) -> None:
    """Writes the objects; those that an earlier call has written are left as they are. Raises Unavailable."""
    for key, data in packed.objects.items():
        store.put_if_absent(key, data)


def discard_objects(store: ObjectStore, packed: Packed) -> None:
    """Deletes the objects again. Raises Unavailable."""
    for key in packed.objects:
        store.delete(key)


def read_result(store: ObjectStore, job: str, entry: rollout_pb2.RolloutResult) -> rollout_pb2.RolloutResult:
    """The whole result that an entry of this job names. Raises NotFound, Corrupt, InvalidInput, Unavailable."""
    _check_place(job, entry.object.key)
    data = read_object(store, entry.object.key, entry.object.sha256, SHORT_PAUSES)  # Lost, it is made again.
    try:
        result = rollout_pb2.RolloutResult.FromString(data)
    except DecodeError as error:
        raise Corrupt(f"{entry.object.key} is no rollout result") from error
    if any(getattr(result, name) != getattr(entry, name) for name in _IN_BOTH):
        raise Corrupt(f"{entry.object.key} holds another sample than its entry in the queue says")
    return result


def delete_object(store: ObjectStore, job: str, key: str) -> None:
    """Deletes the object that an entry of this job names. Raises InvalidInput, Corrupt, Unavailable."""
    _check_place(job, key)
    store.delete(key)


def _check_place(job: str, key: str) -> None:
    """The queue has no authority: an entry must not make us read or delete anything else."""
    if not key.startswith(results_prefix(job)):
        raise Corrupt(f"an entry of job {job} names the object {key}, which is no result of this job")


def _entry(result: rollout_pb2.RolloutResult, key: str, data: bytes) -> rollout_pb2.RolloutResult:
    place = common_pb2.ObjectRef(key=key, sha256=sha256_hex(data), size=len(data))
    return rollout_pb2.RolloutResult(object=place, **{name: getattr(result, name) for name in _IN_BOTH})
