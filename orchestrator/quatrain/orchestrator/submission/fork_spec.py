"""The spec of a fork: its source's resolved spec with changed fields, and what may not change. Pure functions."""

import copy
from collections.abc import Iterator, Mapping

from quatrain.errors import FieldViolation
from quatrain.jobspec import JobSpec, RewardSpec, apply_overrides, parse_spec, resolved_document
from quatrain.jobspec.parsing import invalid_spec
from quatrain.orchestrator.plan import Plan
from quatrain.stages import STAGES

FIXED = {
    "model": "the checkpoint holds this model",
    "seed": "the order of the prompts and the seeds of the samples go on",
    "ppo.value_init": "the value model comes with the checkpoint",
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
    before = resolved_document(source.spec)
    changed = copy.deepcopy(before)
    if source.pinned.reference is not None:
        changed["reference"]["model"] = source.pinned.reference.uri
    changed = apply_overrides(changed, [f"{path}={overrides[path]}" for path in sorted(overrides)])
    value_init = before["ppo"]["value_init"]
    if isinstance(changed.get("ppo"), dict):
        # It says where the value model began, which another reward source cannot change any more.
        value_init = changed["ppo"].pop("value_init", value_init)
    spec = parse_spec(changed)
    after = resolved_document(spec)
    after["ppo"]["value_init"] = value_init
    found = [*_fixed(before, after), *_trained_reward(source.spec.reward, spec.reward), *_ppo(source.spec, spec, step)]
    if found:
        raise invalid_spec(found)
    return spec


def same_reward(one: RewardSpec, other: RewardSpec) -> bool:
    """Return whether two resolved reward sections take their raw scores from the same source."""
    return one.model_dump(exclude=SCORE_FIELDS) == other.model_dump(exclude=SCORE_FIELDS)


def _fixed(before: Mapping[str, object], after: Mapping[str, object]) -> Iterator[FieldViolation]:
    for path, old, new in _changes(before, after):
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
