"""Which checkpoints and policy versions a job keeps: functions of its folded log and its resolved spec, nothing else.

Every stage keeps, of its own checkpoints, the newest `checkpoint.keep_last`, those whose step divides by
`checkpoint.keep_every`, the best by the metric `checkpoint.keep_best`, and the pinned ones. A policy version is kept
as long as a kept checkpoint, an unsealed step, a replay or an evaluation may need it.
"""

from dataclasses import dataclass

from quatrain.joblog import JobView
from quatrain.joblog.compact import MetricRows
from quatrain.joblog.payloads import CheckpointReleased, PoliciesReleased
from quatrain.jobspec import JobSpec, PpoSpec
from quatrain.refs import ModelRef
from quatrain.stages import POLICY_STAGE

RETENTION = "retention"
"""The reason that `checkpoint_released` gives when nobody asked for it."""


@dataclass(frozen=True)
class KeepPolicy:
    """The `checkpoint.keep_*` fields of a spec."""

    last: int
    every: int | None = None
    best: str | None = None

    @staticmethod
    def from_spec(spec: JobSpec) -> "KeepPolicy":
        """Return the policy of a resolved spec."""
        section = spec.checkpoint
        return KeepPolicy(section.keep_last, section.keep_every, section.keep_best)


def next_release(view: JobView, spec: JobSpec) -> CheckpointReleased | PoliciesReleased | None:
    """Return what the job can give up next; None when it needs all. Folding the answer leads to the one after it.

    Checkpoints come one by one, oldest first, then all policy versions together.
    """
    kept = kept_checkpoints(view, KeepPolicy.from_spec(spec))
    for each in view.checkpoints:
        if each.key not in kept:
            return CheckpointReleased(stage=each.stage, step=each.step, key=each.key, reason=RETENTION)
    needed = needed_versions(view, spec)
    versions = [version for version, model in view.policies.items() if version not in needed and _own(view, model)]
    return PoliciesReleased(versions=tuple(sorted(versions))) if versions else None


def kept_checkpoints(view: JobView, policy: KeepPolicy) -> set[str]:
    """Return the keys of the checkpoints that stay. The newest of every stage is always among them."""
    kept = {each.key for each in view.checkpoints if each.key in view.pinned}
    for stage in {each.stage for each in view.checkpoints}:
        of_stage = [each for each in view.checkpoints if each.stage == stage]
        kept |= {each.key for each in of_stage[-policy.last :]}
        if policy.every is not None:
            kept |= {each.key for each in of_stage if each.step % policy.every == 0}
        if policy.best is not None:
            kept |= _best(view, stage, {each.step for each in of_stage}, policy.best)
    return kept


def _best(view: JobView, stage: str, steps: set[int], metric: str) -> set[str]:
    """Return the checkpoint with the highest value of `metric`, with `-metric` the lowest; of equal ones the first.

    The value of a step may come after its checkpoint; until then the step is the newest one and stays for that.
    """
    sign = -1.0 if metric.startswith("-") else 1.0
    name = metric.removeprefix("-")
    rows = view.metrics.get(stage, MetricRows()).between(min(steps), max(steps), (name,))
    measured = {row.step: row.values[name] for row in rows if row.step in steps}
    values = {step: sign * value for step, value in measured.items() if value is not None}
    if not values:
        return set()
    best = max(values, key=lambda step: (values[step], -step))
    return {each.key for each in view.checkpoints if each.stage == stage and each.step == best}


def needed_versions(view: JobView, spec: JobSpec) -> set[int]:
    """Return the versions that stay: those of checkpoints, the newest, and all that a running job may come back to.

    A running job may sample from the pinned version of any unsealed step, train again what came after its newest
    checkpoint, and evaluate what it has not evaluated.
    """
    ppo = spec.ppo
    checkpoints = [each.step for each in view.checkpoints if each.stage == POLICY_STAGE.name]
    needed = {view.policy_version, *checkpoints}
    if view.finished:
        return needed
    completed = view.completed.get(POLICY_STAGE.name, 0)
    first = min(completed, max(checkpoints, default=0))
    unsealed = completed + 1
    while unsealed in view.sealed:
        unsealed += 1
    if unsealed <= ppo.steps:
        first = min(first, unsealed - 1 - ppo.staleness)
    needed |= {version for version in view.policies if version >= first}
    if ppo.eval_prompts is not None:
        needed |= {version for version in view.policies if version not in view.evaluations and _evaluated(version, ppo)}
    return needed


def _evaluated(version: int, ppo: PpoSpec) -> bool:
    """Return whether the spec wants an evaluation of this version."""
    return version % ppo.eval_every == 0 or version == ppo.steps


def _own(view: JobView, model: ModelRef) -> bool:
    """Return whether the model lies in the job's folder: version 0 may be another one, which is not ours to delete."""
    return model.uri.startswith(f"store:jobs/{view.job}/")
