"""Which policies are in memory: at most two versions of each of `job_slots` jobs; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from typing_extensions import override

from quatrain.models.model_runner import Fetch, ModelMemory, WeightsKey
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger

# With staleness, a step's rollouts are made by one version while the next version is being asked for already.
VERSIONS_OF_A_JOB = 2

PolicyT = TypeVar("PolicyT")

_log = get_logger("quatrain.generation")


class PolicySlots(ModelMemory[PolicyT]):
    """Policies by job.

    `load(folder, dtype, recycle)` loads one; `recycle` is a policy that nobody will use again, whose memory may become
    the new one's.
    """

    def __init__(self, load: Callable[[Path, str, PolicyT | None], PolicyT], fetch: Fetch, job_slots: int) -> None:
        self._load = load
        self._fetch = fetch
        self._job_slots = job_slots
        self._jobs: OrderedDict[str, OrderedDict[WeightsKey, PolicyT]] = OrderedDict()

    @override
    def holds(self, job: str, ref: ModelRef, dtype: str) -> bool:
        return WeightsKey.of(ref, dtype) in self._jobs.get(job, ())

    @override
    def get(self, job: str, ref: ModelRef, dtype: str) -> PolicyT:
        # Room is made before loading, so that memory never holds one policy too many.
        key = WeightsKey.of(ref, dtype)
        held = self._jobs.setdefault(job, OrderedDict())
        self._jobs.move_to_end(job)
        if key not in held:
            folder = self._fetch(ref.uri, ref.digest)
            recycle = self._make_room(held)
            held[key] = self._load(folder, dtype, recycle)
            _log.info("policy loaded", job=job, policy_version=ref.policy_version, digest=ref.digest)
        held.move_to_end(key)
        return held[key]

    def _make_room(self, held: OrderedDict[WeightsKey, PolicyT]) -> PolicyT | None:
        """Drop policies until one more fits; return the last one dropped, whose memory the new one may take."""
        evicted: PolicyT | None = None
        while len(self._jobs) > self._job_slots:
            _, policies = self._jobs.popitem(last=False)
            for policy in policies.values():
                evicted = policy
        while len(held) >= VERSIONS_OF_A_JOB:
            _, evicted = held.popitem(last=False)
        return evicted
