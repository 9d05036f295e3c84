"""Which objects of a job are garbage: those that no event can name any more, and those that were given up.

An object has no authority until an event names it, so one that no event names is garbage only once no event can come
to name it: a newer attempt is in the log, or the terminal event. Nothing is decided by age. What this module
does not know by name is no garbage.
"""

import re
from collections.abc import Set
from dataclasses import dataclass

from quatrain.joblog import JobView
from quatrain.joblog.jobs import spec_key
from quatrain.orchestrator.plan import Plan
from quatrain.stages import POLICY_STAGE, STAGES

MANIFEST = "/manifest.json"
FOLDER = re.compile(
    r"^(?P<unit>jobs/[^/]+/(?P<stage>[^/]+)/(?P<kind>policy|checkpoints)/(?P<number>\d+)-(?P<by>\d+))/."
)
TABLE = re.compile(r"^jobs/[^/]+/ppo/(batches|evals|tokens)/\d+-\d+(-[^/]+)?\.parquet$")
LATE_RESULT = re.compile(r"^jobs/[^/]+/ppo/rollouts/")


@dataclass(frozen=True)
class JobGarbage:
    """What the log of a job says about its objects at one revision, and so which of them are garbage."""

    job: str
    attempt: int
    finished: bool
    deleted: bool
    named: frozenset[str]
    """Folders that events name and no later event has released. Tables, two for each step, are here only once the job
    has finished."""
    released: frozenset[str]
    released_versions: Set[int]
    stages_done: frozenset[str]
    promised: frozenset[str]
    """Folders and objects that spec.json names: a job may begin with some."""

    def folders(self) -> tuple[str, ...]:
        """Return prefixes under which there may be garbage. Tables come once, at the end: they are small and many."""
        root = f"jobs/{self.job}/"
        if self.deleted:
            return (root,)
        folders = tuple(f"{root}{stage}/{kind}/" for stage in STAGES for kind in ("policy", "checkpoints"))
        tables = tuple(f"{root}ppo/{kind}/" for kind in ("batches", "evals", "tokens", "rollouts"))
        return folders + tables if self.finished else folders

    def is_garbage(self, key: str) -> bool:
        """Return whether nothing needs the object any more. `key` lies under one of `folders`."""
        if self.deleted:
            root = f"jobs/{self.job}/"
            return key != spec_key(self.job) and not key.startswith((f"{root}events/", f"{root}snapshots/"))
        folder = FOLDER.match(key)
        if folder is not None:
            return self._is_garbage_folder(folder)
        if TABLE.match(key):
            return self.finished and key not in self.named and key not in self.promised
        return self.finished and LATE_RESULT.match(key) is not None

    def _is_garbage_folder(self, folder: re.Match[str]) -> bool:
        unit, by = folder["unit"], int(folder["by"])
        if unit in self.named:
            return False
        if unit in self.released:
            return True
        is_version = (folder["stage"], folder["kind"]) == (POLICY_STAGE.name, "policy")
        if is_version and int(folder["number"]) in self.released_versions:
            return True
        if unit in self.promised:
            return False
        # Tasks that measure a reward model name it by its folder, though no event does.
        needed = folder["kind"] == "policy" and folder["stage"] not in (POLICY_STAGE.name, *self.stages_done)
        # Attempt 0 wrote what came with the job's creation: no learner will replace it.
        return self.finished or (0 < by < self.attempt and not needed)


def garbage_of(view: JobView, plan: Plan) -> JobGarbage:
    """Return what the folded log and spec.json of a job say about its objects. A pure function."""
    named = {_unit(checkpoint.key) for checkpoint in view.checkpoints}
    named |= {_unit(policy.uri) for policy in view.policies.values()}
    if view.finished:
        named |= {said.key for table in (view.sealed, view.tokens, view.evaluations) for said in table.values()}
    return JobGarbage(
        job=view.job,
        attempt=view.attempt,
        finished=view.finished,
        deleted=view.deleted is not None,
        named=frozenset(named),
        released=frozenset(_unit(key) for key in view.released),
        released_versions=view.released_policies.copy(),
        stages_done=frozenset(view.stage_results),
        promised=frozenset(map(_unit, re.findall(rf"(?:store:)?jobs/{re.escape(view.job)}/[^\"]*", plan.texts))),
    )


def _unit(name: str) -> str:
    """Return the folder that a uri or the key of a manifest means."""
    return name.removeprefix("store:").removesuffix(MANIFEST)
