"""Which policies are in memory: at most two versions of each of `job_slots` jobs; the least recently used go first."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from quatrain.generation.engines.base import Engine, LoadedPolicy
from quatrain.models.references import WeightsKey
from quatrain.refs import ModelRef
from quatrain.telemetry.logging import get_logger

# With staleness, a step's rollouts are made by one version while the next version is being asked for already.
VERSIONS_OF_A_JOB = 2

_log = get_logger("quatrain.generation")


class PolicySlots:
    """Policies by job. Used by the model thread only, except for `holds`."""

    def __init__(self, engine: Engine, fetch: Callable[[str, str], Path], job_slots: int) -> None:
        self._engine = engine
        self._fetch = fetch
        self._job_slots = job_slots
        self._jobs: OrderedDict[str, OrderedDict[WeightsKey, LoadedPolicy]] = OrderedDict()

    def holds(self, job: str, key: WeightsKey) -> bool:
        """Whether the policy is in memory now; by the time of use it may have gone."""
        return key in self._jobs.get(job, ())

    def policy(self, job: str, ref: ModelRef, dtype: str) -> LoadedPolicy:
        """The policy that `ref` names, loaded if it is not held.

        Room is made before loading, so that memory never holds one policy too many. Raises NotFound, Corrupt,
        Unavailable (fetching), InvalidInput, InvalidData (loading).
        """
        key = WeightsKey.of(ref, dtype)
        held = self._jobs.setdefault(job, OrderedDict())
        self._jobs.move_to_end(job)
        if key not in held:
            folder = self._fetch(ref.uri, ref.digest) if self._engine.needs_weights else None
            recycle = self._make_room(held)
            held[key] = self._engine.load(folder, dtype, recycle)
            _log.info("policy loaded", job=job, policy_version=ref.policy_version, digest=ref.digest)
        held.move_to_end(key)
        return held[key]

    def _make_room(self, held: OrderedDict[WeightsKey, LoadedPolicy]) -> LoadedPolicy | None:
        """Lets policies go until one more fits; the last one that went, whose memory the new one may take."""
        evicted: LoadedPolicy | None = None
        while len(self._jobs) > self._job_slots:
            _, policies = self._jobs.popitem(last=False)
            for policy in policies.values():
                evicted = policy
        while len(held) >= VERSIONS_OF_A_JOB:
            _, evicted = held.popitem(last=False)
        return evicted
