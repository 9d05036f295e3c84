"""The spec of a fork: its source's resolved spec with changed fields, and what may not change. Pure functions."""

from collections.abc import Iterator, Mapping

from quatrain.errors import FieldViolation
from quatrain.jobspec import JobSpec, RewardSpec, apply_overrides, parse_spec, resolved_document
from quatrain.jobspec.overrides import take_field
from quatrain.jobspec.parsing import invalid_spec
from quatrain.jobspec.sections import ReferenceSpec
from quatrain.orchestrator.plan import Plan
from quatrain.stages import STAGES

VALUE_INIT = "ppo.value_init"

FIXED = {
    "model": "the checkpoint holds this model",
    "seed": "the order of the prompts and the seeds of the samples go on",
    VALUE_INIT: "the value model comes with the checkpoint",
} | {
    stage.name: f"the {stage} stage ended before the checkpoint"
    for stage in STAGES
    if not (stage.uses_rollouts or stage.makes_reward_model)
}
"""Fields, or sections, that a fork takes over as they are, and why."""

SCORE_FIELDS = {"scale", "clip", "timeout"}
"""Fields of a reward section that say what is done with scores, not where they come from."""


def forked_spec(source: Plan, overrides: Mapping[str, str], step: int) -> JobSpec:
    """Return the spec of a fork from the checkpoint of `step`.

    Raises InvalidSpec with one violation for each field that is wrong or cannot change.
    """
    before = source.spec
    if source.pinned.reference is not None:
        before = before.model_copy(update={"reference": ReferenceSpec(model=source.pinned.reference.uri)})
    changed = apply_overrides(resolved_document(before), [f"{path}={overrides[path]}" for path in sorted(overrides)])
    # It says where the value model began, which another reward source cannot change any more: no rule is asked.
    value_init = take_field(changed, VALUE_INIT, source.spec.ppo.value_init)
    spec = parse_spec(changed)
    found = [
        *_fixed(source.spec, spec, value_init),
        *_trained_reward(source.spec.reward, spec.reward),
        *_ppo(source.spec, spec, step),
    ]
    if found:
        raise invalid_spec(found)
    return spec


def same_reward(one: RewardSpec, other: RewardSpec) -> bool:
    """Return whether two resolved reward sections take their raw scores from the same source."""
    return one.model_dump(exclude=SCORE_FIELDS) == other.model_dump(exclude=SCORE_FIELDS)


def _fixed(before: JobSpec, after: JobSpec, value_init: object) -> Iterator[FieldViolation]:
    """Yield what changed that cannot; `value_init` is what the fork asks for, which `after` has lost."""
    changes = [each for each in _changes(resolved_document(before), resolved_document(after)) if each[0] != VALUE_INIT]
    if value_init != before.ppo.value_init:
        changes.append((VALUE_INIT, before.ppo.value_init, value_init))
    for path, old, new in changes:
        for name, why in FIXED.items():
            if path == name or path.startswith(f"{name}."):
                yield FieldViolation(
                    path, f"{new!r} instead of {old!r}: cannot change in a fork, {why}; submit a new job"
                )


def _trained_reward(before: RewardSpec, after: RewardSpec) -> Iterator[FieldViolation]:
    """Refuse changes of a reward model that the source has trained: a fork keeps it as it is, or replaces it."""
    if after.data is None or same_reward(before, after):
        return
    for path, _, new in _changes(before.model_dump(mode="json"), after.model_dump(mode="json"), "reward."):
        if path.removeprefix("reward.") not in SCORE_FIELDS:
            text = "no reward model is trained in a fork; leave it, or set `reward` to a model, functions or a service"
            yield FieldViolation(path, f"{new!r}: {text}")


def _ppo(before: JobSpec, after: JobSpec, step: int) -> Iterator[FieldViolation]:
    steps, old, new = after.ppo.steps, before.ppo.kl, after.ppo.kl
    if steps <= step:
        text = f"{steps}: step numbers go on, and the checkpoint is of step {step} already; give more than {step}"
        yield FieldViolation("ppo.steps", text)
    if new.controller == "adaptive" and new.coef != old.coef:
        text = f"{new.coef!r}: the adaptive controller goes on with the coefficient of the checkpoint; leave it out"
        yield FieldViolation("ppo.kl.coef", text)


def _changes(
    before: Mapping[str, object], after: Mapping[str, object], prefix: str = ""
) -> Iterator[tuple[str, object, object]]:
    """Yield dotted path, old and new value of every field that differs."""
    for name in sorted(before.keys() | after.keys()):
        old, new = before.get(name), after.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{prefix}{name}.")
        elif old != new:
            yield f"{prefix}{name}", old, new
